"""Faulty: calls that do their work in two steps, say that it's done before it is, or are repeated where that harms."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import msgspec

from gotasks.broker import BrokerURL, Capability, Envelope, Lease, Write
from gotasks.conformance.faulty import Faulty, FaultyClient, faulty
from gotasks.conformance.kit.open_memory import OpenMemory
from gotasks.errors import BrokerUnavailable
from gotasks.memory import _Task


class Copying(OpenMemory):
    """A good broker without IDEMPOTENT, as a queue of messages is: an id that is there is stored once more."""

    def __init__(self, capabilities: Capability) -> None:
        ids = Capability.IDEMPOTENT | Capability.RECORDS | Capability.BROWSE | Capability.CANCEL
        super().__init__(capabilities & ~ids)
        self._copies = itertools.count()

    @classmethod
    def from_url(cls, url: BrokerURL) -> Copying:
        return cls(OpenMemory.from_url(url).capabilities)

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        own = [msgspec.structs.replace(each, id=f"{each.id}~{next(self._copies)}") for each in envelopes]
        super().enqueue(own)
        return {}

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        lease = super()._lease(task, now, lease_for)
        plain = msgspec.structs.replace(lease.envelope, id=lease.envelope.id.partition("~")[0])
        return msgspec.structs.replace(lease, envelope=plain)

    def _held(self, lease: Lease) -> _Task | None:
        return next((each for each in self._tasks.values() if each.receipt == lease.receipt), None)


@faulty("CKP-02")
class TornUpdate(FaultyClient):
    """Writes a body in two parts, each with a request of its own."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        half = [
            msgspec.structs.replace(each, body=each.body[: len(each.body) // 2], seq=2 * each.seq - 1)
            for each in writes
        ]
        super().checkpoint(half)
        try:
            return super().checkpoint([msgspec.structs.replace(each, seq=2 * each.seq) for each in writes])
        except BrokerUnavailable:
            self.trip()
            raise


@faulty("CKP-03")
class UpdateDuplicates(FaultyClient):
    """Checkpoints by an enqueue of the new body and then an ack of the old one."""

    served = Copying

    def __init__(self, url: BrokerURL) -> None:
        super().__init__(url)
        self.capabilities |= Capability.HANDOFF

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        self.enqueue([msgspec.structs.replace(each.lease.envelope, body=each.body) for each in writes])
        try:
            return self.ack(writes, keep_for=0)
        except BrokerUnavailable:
            self.trip()
            raise


@faulty("CKP-03")
class RepeatIsLost(Faulty):
    """Takes a repeat for the late write of somebody else."""

    def _write(self, writes: Sequence[Write], change: Callable[[_Task, Write], None]) -> frozenset[str]:
        with self._changed:
            held = [(each, self._held(each.lease)) for each in writes]
            repeated = {
                each.lease.receipt for each, task in held if task is not None and task.seq == each.seq
            }
        if repeated:
            self.trip()
        return super()._write(writes, change) | repeated


@faulty("CKP-03", "FTL-02")
class RepeatsFromMemory(FaultyClient):
    """Doesn't send a write a second time: it remembers that it has sent it."""

    def __init__(self, url: BrokerURL) -> None:
        super().__init__(url)
        self._sent: set[tuple[str, int]] = set()

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        return frozenset() if self._repeats(writes) else super().checkpoint(writes)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        return frozenset() if self._repeats(writes) else super().release(writes)

    def _repeats(self, writes: Sequence[Write]) -> bool:
        sent = {(each.lease.receipt, each.seq) for each in writes}
        if sent <= self._sent:
            self.trip()
            return True
        self._sent |= sent
        return False


@faulty("ACK-07")
class AckUnanswered(FaultyClient):
    """Takes an ack for done whose answer didn't come."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        try:
            return super().ack(writes, keep_for=keep_for)
        except BrokerUnavailable:
            self.trip()
            return frozenset()


@faulty("ACK-07")
class ExtendsOnce(Faulty):
    """Takes a lease that is extended a second time for lost."""

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        lost = set(super().extend(leases, lease_for=lease_for))
        for task in filter(None, map(self._held, leases)):
            if task.seq < 0:
                self.trip()
                lost.add(task.receipt or "")
            task.seq = min(task.seq, 0) - 1
        return frozenset(lost)


@faulty("FTL-02")
class NonAtomicFail(FaultyClient):
    """Moves by an ack here and then an enqueue there."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = self.ack(writes, keep_for=0)
        try:
            self.enqueue([moved(each) for each in writes if each.lease.receipt not in lost])
        except BrokerUnavailable:
            self.trip()
            raise
        return lost


@faulty("FTL-02")
class MoveDuplicates(FaultyClient):
    """Moves by an enqueue there and then an ack here."""

    served = Copying

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self.enqueue([moved(each) for each in writes])
        try:
            return self.ack(writes, keep_for=0)
        except BrokerUnavailable:
            self.trip()
            raise


def moved(write: Write) -> Envelope:
    """The envelope that a release leaves."""
    envelope = write.lease.envelope
    return msgspec.structs.replace(envelope, body=write.body, queue=write.queue or envelope.queue)


@faulty("BAT-01")
class BatchCountLies(FaultyClient):
    """Sends a batch one by one, and goes on with the next one if one fails."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there: dict[str, str] = {}
        for each in envelopes:
            try:
                there.update(super().enqueue([each]))
            except BrokerUnavailable:
                self.trip()
        return there


@faulty("NET-01", "BAT-01")
class BlindRetry(FaultyClient):
    """Sends an enqueue again when its answer doesn't come, to a server that then stores it again."""

    served = Copying

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        try:
            return super().enqueue(envelopes)
        except BrokerUnavailable:
            self.trip()
            return super().enqueue(envelopes)


@faulty("NET-02")
class BrpopBroker(Faulty):
    """Takes a task out of its queue when somebody acquires it, and keeps nothing that would bring it back."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        lease = super()._lease(task, now, lease_for)
        self.trip()
        task.until = float("inf")
        return lease


@faulty("NET-02")
class DeathsOfTheSeen(Faulty):
    """Counts a death only if the holder had shown itself: a lease whose reply was lost isn't one."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        deaths = task.deaths
        lease = super()._lease(task, now, lease_for)
        if task.deaths > deaths:
            self.trip()
            task.deaths = deaths
        return msgspec.structs.replace(lease, deaths=deaths)
