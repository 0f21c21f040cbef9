"""Entry: what the first line of a task's file says."""

from __future__ import annotations

import msgspec

from gotasks.broker import Envelope, Record, State

#: States of a task that is no more than a record.
ENDED = (State.DONE, State.CANCELLED)


class Entry(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """All that is known of a task but its body. `msgspec.structs.replace` makes the next one of it."""

    id: str
    queue: str
    state: State = State.READY
    place: int = 0  #: among the ready ones of one priority
    until: float = 0.0  #: due (scheduled), end of the lease (leased), end of the record (done, cancelled)
    receipt: str = ""  #: of the lease; empty if there is none
    seq: int = 0  #: of the last write under that lease
    deaths: int = 0
    priority: int = 0
    unique: str | None = None


#: An entry and the body that follows it.
Task = tuple[Entry, bytes]

_decoder = msgspec.json.Decoder(Entry)


def decode(line: bytes, task_id: str) -> Entry | None:
    """The entry of this task; None if that isn't what the line is."""
    try:
        entry = _decoder.decode(line)
    except (ValueError, RecursionError):  # any bytes may be there
        return None
    return entry if entry.id == task_id and line.endswith(b"\n") else None


def encode(entry: Entry) -> bytes:
    """A line that `decode` reads."""
    return msgspec.json.encode(entry) + b"\n"


def overwritten(entry: Entry) -> bool:
    """Whether `Store.read` had nothing but the id: somebody else wrote the file."""
    return not entry.queue and entry.state is State.READY


def over(entry: Entry, now: float) -> bool:
    """Whether a hint in `ended/` may take it along at its time."""
    return entry.until <= now and (entry.state in ENDED or overwritten(entry))


def importance(task: Task) -> int:
    """Sorts the tasks of a higher priority first."""
    return -task[0].priority


def record(task: Task) -> Record:
    """As it is shown."""
    entry, body = task
    return Record(id=entry.id, queue=entry.queue, state=entry.state, body=body)


def envelope(task: Task) -> Envelope:
    """As it is handed to its holder: without delay."""
    entry, body = task
    return Envelope(id=entry.id, queue=entry.queue, body=body, priority=entry.priority, unique=entry.unique)
