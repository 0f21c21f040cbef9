"""What a peer's script says about its system, and how it is told to use it. Standard library only."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.protocol import SETUP, Unsupported
from benchmarks.record import Record

#: The name of the queue, where a peer lets its users choose one.
QUEUE = "gotasks-bench"

#: Seconds for which a task that was enqueued may wait for its start.
PATIENCE = 60.0


@dataclass(frozen=True)
class Setup:
    """What one measurement uses. The harness puts it into the environment of scripts and workers."""

    url: str
    record: str = ""  #: the file of the Record
    cells: int = 0  #: of the Record
    concurrency: int = 10  #: handlers at once in a worker process
    options: Mapping[str, Any] = field(default_factory=dict)  #: of this variant of the peer; see `catalogue`

    @classmethod
    def inherited(cls) -> Setup:
        """That of this process."""
        return cls(**json.loads(os.environ[SETUP]))


setup = Setup.inherited()
record = Record(Path(setup.record), setup.cells) if setup.record else None


def mark(cell: int) -> None:
    """What every handler does first. `cell`: the task's number; in chains three times that, plus the step's."""
    assert record is not None
    record.mark(cell)


class Peer:
    """One system, used as its documentation says. Its calls are awaited in one event loop, by one producer.

    The jobs are `one` (marks its start and is done), `nap` (then sleeps NAP seconds) and `chain` (three handlers,
    each marks its start). Their argument is the task's number. Ours has those of BURNS too.
    """

    #: The module that the peer's own command line loads.
    module: ClassVar[str]

    async def prepare(self) -> None:
        """Make what the place needs once, such as a schema. By default nothing."""

    async def open(self) -> None:
        """Connect a producer. By default nothing."""

    async def close(self) -> None:
        """Undo `open`. By default nothing."""

    async def enqueue(self, job: str, number: int) -> None:
        """Enqueue one task; return when the server has it."""
        raise NotImplementedError

    async def enqueue_many(self, job: str, numbers: Sequence[int]) -> None:
        """Enqueue tasks by what the peer has for many at once. Raises Unsupported."""
        raise Unsupported("enqueues one by one only")

    async def pending(self) -> int:
        """How many tasks are stored that aren't done."""
        raise NotImplementedError

    def carry(self, size: int) -> None:
        """Have each task that is enqueued from now on carry so many bytes more in its args. Raises Unsupported."""
        raise Unsupported("is measured of gotasks alone")

    def crowd(self, what: str, size: int, samples: int) -> Mapping[str, float]:
        """What tasks cost in a place that is full of something, beside one that isn't. Raises Unsupported."""
        raise Unsupported("is measured of gotasks alone")

    def worker(self, number: int) -> list[str]:
        """The command that starts a worker process, as a user would; its first word is a program of the venv.

        `number`: from 0, where several workers need names of their own.
        """
        raise NotImplementedError


async def carry_out(peer: Peer, command: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the harness asks of a peer: a command's name is under `do`, its parameters beside it."""
    what = command["do"]
    if what == "worker":
        return {"commands": [peer.worker(number) for number in range(command["processes"])]}
    if what == "prepare":
        await peer.prepare()
        return {}
    if what == "crowd":
        return peer.crowd(command["kind"], command["size"], command["samples"])
    if command.get("carry"):
        peer.carry(command["carry"])
    await peer.open()
    try:
        if what == "enqueue":
            return {"seconds": await _enqueue(peer, command["job"], _numbers(command))}
        if what == "bulk":
            return {"seconds": await _bulk(peer, command["job"], _numbers(command), command["batch"])}
        if what == "pace":
            return {"began": await _pace(peer, command)}
        if what == "settle":
            return {"pending": await _settle(peer, command["timeout"])}
        raise ValueError(f"no such command: {what}")
    finally:
        await peer.close()


def _numbers(command: Mapping[str, Any]) -> range:
    return range(command["first"], command["first"] + command["tasks"])


async def _enqueue(peer: Peer, job: str, numbers: range) -> float:
    """Seconds for one call a task, one after the other."""
    began = time.perf_counter()
    for number in numbers:
        await peer.enqueue(job, number)
    return time.perf_counter() - began


async def _bulk(peer: Peer, job: str, numbers: range, batch: int) -> float:
    """Seconds for all of them in calls of `batch`."""
    began = time.perf_counter()
    for start in range(0, len(numbers), batch):
        await peer.enqueue_many(job, numbers[start : start + batch])
    return time.perf_counter() - began


async def _pace(peer: Peer, command: Mapping[str, Any]) -> list[float]:
    """When each `enqueue` was called (`time.monotonic`), about `gap` seconds apart.

    With `wait` each waits for the start of the one before, so the worker is idle, and the gaps vary by half, so that
    they don't keep step with a worker that polls. Without, a late call doesn't delay those after it.
    """
    assert record is not None
    gap, wait = command["gap"], command["wait"]
    began = []
    due = time.monotonic()
    for number in _numbers(command):
        began.append(time.monotonic())
        await peer.enqueue(command["job"], number)
        due += gap
        await asyncio.sleep(random.uniform(0.5, 1.5) * gap if wait else max(0.0, due - time.monotonic()))
        while wait and not record.at(number):
            if time.monotonic() > began[-1] + PATIENCE:
                raise TimeoutError(f"task {number} wasn't started in {PATIENCE:.0f} s")
            await asyncio.sleep(0.002)
    return began


async def _settle(peer: Peer, timeout: float) -> int:
    """What is still stored when nothing is left, or after `timeout` seconds."""
    ends = time.monotonic() + timeout
    while (left := await peer.pending()) and time.monotonic() < ends:  # noqa: ASYNC110 - another process does it
        await asyncio.sleep(0.05)
    return left
