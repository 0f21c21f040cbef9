"""Load: what a client does while its server is killed, the journal of it, and what must be true afterwards.

Each client has a queue of its own, so what is confirmed of a task is in one journal, in order. A body is the task's
version: every write raises it. An entry is written before a call and, if it was confirmed, after it; it is one write
to a file, which the SIGKILL of the client doesn't take.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from gotasks.broker import Broker, Capability, Envelope, Lease, Write
from gotasks.errors import BrokerUnavailable

#: Between two tries of a call that the server didn't answer. Seconds.
PAUSE = 0.02

_stop = threading.Event()


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a journal."""

    what: Literal["asked", "confirmed", "found"]  #: found: `acquire` gave it
    task: str
    version: int  #: of the body that is written or found
    ends: bool = False  #: the call is an ack


def work(broker: Broker, queue: str, journal: str, lease_for: float) -> None:
    """Enqueue, acquire, checkpoint, ack and release in turn until `stop`. For another process."""
    _Client(broker, queue, journal, lease_for).work()


def stop(broker: Broker) -> None:
    """Have `work` end after what it is at. In the same process."""
    _stop.set()


class _Client:
    def __init__(self, broker: Broker, queue: str, journal: str, lease_for: float) -> None:
        self._broker, self._queue, self._lease_for = broker, queue, lease_for
        self._file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = min(2, broker.limits.max_batch)  #: of a batch
        self._names = (f"{queue.replace('.', '-')}-{os.getpid()}-{each}" for each in itertools.count())

    def work(self) -> None:
        handoff = Capability.HANDOFF in self._broker.capabilities
        while not _stop.is_set():
            for _ in range(2 // self._size):
                self._enqueue(self._size)
            leases = [lease for _ in range(2 // self._size) for lease in self._acquire(self._size)]
            held = self._write(leases, 1, self._broker.checkpoint)
            if not handoff:
                self._write(held[:1], 2, lambda writes: self._broker.ack(writes, keep_for=0), ends=True)
                self._write(held[1:], 2, self._broker.release)
            elif done := self._acquire(1):
                self._write(done, 1, lambda writes: self._broker.ack(writes, keep_for=0), ends=True)

    def _enqueue(self, count: int) -> None:
        envelopes = [Envelope(id=next(self._names), queue=self._queue, body=body_of(0)) for _ in range(count)]
        for each in envelopes:
            self._note("asked", each.id, 0)
        try:
            self._broker.enqueue(envelopes)
        except BrokerUnavailable:
            time.sleep(PAUSE)
            return  # unknown, and it stays so: these ids aren't used again
        for each in envelopes:
            self._note("confirmed", each.id, 0)

    def _acquire(self, limit: int) -> list[Lease]:
        try:
            leases = self._broker.acquire(self._queue, limit=limit, wait=0.02, lease_for=self._lease_for)
        except BrokerUnavailable:
            time.sleep(PAUSE)
            return []
        for lease in leases:
            self._note("found", lease.envelope.id, version_of(lease.envelope.body))
        return leases

    def _write(
        self,
        leases: Sequence[Lease],
        seq: int,
        call: Callable[[Sequence[Write]], Iterable[str]],
        *,
        ends: bool = False,
    ) -> list[Lease]:
        """Write the next version under each lease, repeated until it is answered; the leases that weren't lost."""
        if len(leases) > self._size:
            return [held for each in leases for held in self._write([each], seq, call, ends=ends)]
        writes = []
        for lease in leases:
            version = version_of(lease.envelope.body) + seq
            self._note("asked", lease.envelope.id, version, ends=ends)
            writes.append(Write(lease=lease, body=body_of(version), seq=seq))
        while writes and not _stop.is_set():
            try:
                lost = frozenset(call(writes))
            except BrokerUnavailable:
                time.sleep(PAUSE)
                continue
            held = [each for each in writes if each.lease.receipt not in lost]
            for each in held:
                self._note("confirmed", each.lease.envelope.id, version_of(each.body), ends=ends)
            return [each.lease for each in held]
        return []

    def _note(
        self, what: Literal["asked", "confirmed", "found"], task: str, version: int, *, ends: bool = False
    ) -> None:
        entry = Entry(what=what, task=task, version=version, ends=ends)
        os.write(self._file, msgspec.json.encode(entry) + b"\n")


def body_of(version: int) -> bytes:
    """A body that shows when a piece of it is missing."""
    return b"%d " % version + b"x" * 300 + b" %d" % version


def version_of(body: bytes) -> int:
    """The version that a body has; -1 if it isn't a whole one."""
    first = body.partition(b" ")[0]
    return int(first) if first.isdigit() and body == body_of(int(first)) else -1


def read(journal: Path) -> list[Entry]:
    """What was written so far."""
    if not journal.exists():
        return []
    lines = journal.read_bytes().split(b"\n")[:-1]
    return [msgspec.json.decode(line, type=Entry) for line in lines]


@dataclass
class Account:
    """A journal, and the bodies of each task that were found in its queue when all was over."""

    entries: Sequence[Entry]
    rest: Mapping[str, Sequence[bytes]]
    confirmed: int = 0
    missing: list[str] = field(default_factory=list)  #: a sentence for each
    back: list[str] = field(default_factory=list)  #: acked, and offered again
    older: list[str] = field(default_factory=list)  #: offered with a body before the last confirmed one
    torn: list[str] = field(default_factory=list)  #: with a body that nobody wrote
    copies: int = 0  #: more than one of a task at the end

    def __post_init__(self) -> None:
        latest: dict[str, int] = {}
        ended: set[str] = set()
        ending: set[str] = set()
        for each in self.entries:
            if each.what == "asked":
                if each.ends:
                    ending.add(each.task)
            elif each.what == "confirmed":
                self.confirmed += 1
                latest[each.task] = max(each.version, latest.get(each.task, 0))
                if each.ends:
                    ended.add(each.task)
            else:
                self._see(each.task, each.version, latest, ended)
        for task, bodies in self.rest.items():
            self.copies += len(bodies) - 1
            for body in bodies:
                self._see(task, version_of(body), latest, ended)
        self.missing += [
            f"{task}, whose version {latest[task]} was confirmed"
            for task in latest
            if task not in ending and task not in self.rest
        ]

    def _see(self, task: str, version: int, latest: Mapping[str, int], ended: set[str]) -> None:
        if version < 0:
            self.torn.append(task)
        elif task in ended:
            self.back.append(f"{task}, whose ack was confirmed")
        elif version < latest.get(task, 0):
            self.older.append(f"{task} with version {version} after {latest[task]} was confirmed")
