"""Task: one run of a job, as the record that a broker stores between two steps."""

from __future__ import annotations

import os
import re
import time
from enum import Enum

import msgspec

from gotasks.errors import InvalidName

_TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class Status(str, Enum):
    """The state that a task is in: exactly one of these (guarantee G2)."""

    SCHEDULED = "scheduled"
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    FATAL = "fatal"
    CANCELLED = "cancelled"


class Outcome(str, Enum):
    """Why a task lies in the fatal queue."""

    FAILED = "failed"  #: the handler raised, and no retry was left
    TIMED_OUT = "timed_out"  #: the handler ran longer than its timeout
    IN_DOUBT = "in_doubt"  #: its worker went away; a step that isn't reentrant may have been started
    CRASHED = "crashed"  #: its worker went away `max_crashes` times in one reentrant step
    UNKNOWN_JOB = "unknown_job"  #: this worker has no job of that name
    CHAIN_CHANGED = "chain_changed"  #: the job's steps aren't those that the task was enqueued with
    UNREADABLE = "unreadable"  #: not a task record
    REJECTED = "rejected"  #: a result that can't be stored: too large


class Failure(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A task's `result_log`: why and where it stopped."""

    outcome: Outcome
    error: str
    at: str  #: RFC 3339, UTC
    step: str = ""  #: the step that was next, empty where there was none
    traceback: str = ""
    in_doubt: bool = False  #: resuming at `step` may start it a second time


class Task(msgspec.Struct, omit_defaults=True, gc=False):
    """The record. Field names on the wire are the Go library's, then ours.

    Two args maps are kept as JSON text: `original_args_map` is never decoded by a worker, and every try of a
    handler gets a fresh decode of `args_map`, so nothing that a handler does to its map can leak into the next.
    """

    task_id: str
    created_at: str  #: RFC 3339, UTC
    updated_at: str
    queue_name: str  #: its origin; stays while the task lies in the fatal queue
    job_name: str
    args_map: msgspec.Raw  #: input of the next step
    current_handler_index: int  #: completed steps = index of the next (or failed) one
    original_args_map: msgspec.Raw
    result_log: Failure | str | None = None
    v: int = 0  #: version of the record; 0 = as the Go library writes it
    steps: tuple[str, ...] | None = None  #: the chain's step names; None until a first checkpoint fills it
    tries: int = 0  #: failed tries of the next step
    crashes: int = 0  #: deaths in the next step, counted before a suspect was given back
    moving: str | None = None  #: on its way into that queue, where a move takes two writes
    not_before: str | None = None  #: RFC 3339; when a delayed task becomes ready
    raw: str | None = None  #: base64 of a body that could not be read


def is_task_id(task_id: object) -> bool:
    """Whether a broker can store this id: one that it can't isn't known to it either, so it needn't be asked."""
    return isinstance(task_id, str) and _TASK_ID.fullmatch(task_id) is not None


def check_task_id(task_id: str) -> str:
    """Return `task_id`. Raises InvalidName if a broker couldn't store it."""
    if not is_task_id(task_id):
        raise InvalidName(f"a task id is 1 to 64 of A-Z a-z 0-9 _ -, not {task_id!r:.100}")
    return task_id


def check_queue_name(name: str) -> str:
    """Return `name`. Raises InvalidName if a broker couldn't store it."""
    if not isinstance(name, str) or not _QUEUE.fullmatch(name):
        raise InvalidName(f"a queue's name is 1 to 128 of A-Z a-z 0-9 _ . -, not {name!r:.200}")
    return name


def new_task_id() -> str:
    """A UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then random bits. Sorts by time."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
