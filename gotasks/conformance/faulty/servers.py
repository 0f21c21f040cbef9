"""Faulty: what a full, a forgetful or a weakened server brings to light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from gotasks.broker import Envelope, Lease, State, Write
from gotasks.conformance.faulty import Faulty, FaultyClient, faulty
from gotasks.errors import BrokerUnavailable, Rejected


@faulty("SRV-04")
class SwallowOOM(Faulty):
    """Says nothing when there is no room for a task of many bytes, and doesn't store it."""

    def enqueue_when_full(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.trip()
        self.__dict__["tries"] = self.__dict__.get("tries", 0) + 1
        if self.__dict__["tries"] > 1:
            super().enqueue_when_full(envelopes)
        return {}


@faulty("SRV-04")
class BuffersWhenFull(Faulty):
    """Confirms tasks into a buffer, and hopes that there will be room for them."""

    def enqueue_when_full(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.trip()
        return self.enqueue(envelopes)


@faulty("SRV-04")
class HalfWrittenWhenFull(Faulty):
    """Refuses all of a batch when there is no room, and has stored the first ones."""

    def enqueue_when_full(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.trip()
        self.enqueue(envelopes[:1])
        return super().enqueue_when_full(envelopes)


@faulty("SRV-04")
class TornWhenFull(Faulty):
    """Stores as much of a body as there is room for."""

    def enqueue_when_full(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.trip()
        self.enqueue([msgspec.structs.replace(each, body=each.body[:1000]) for each in envelopes])
        raise BrokerUnavailable("no room", ids=[each.id for each in envelopes])


@faulty("SRV-04")
class ErrorOfTheServer(Faulty):
    """Lets the server's own error through."""

    def enqueue_when_full(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.trip()
        raise MemoryError("no room")


@faulty("SRV-04")
class EvictsWhenFull(Faulty):
    """Makes room by throwing a ready task away."""

    def enqueue_when_full(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        ready = [task for task in self._tasks.values() if task.state is State.READY]
        if ready:
            self.trip()
            del self._tasks[ready[0].id]
        return super().enqueue_when_full(envelopes)


@faulty("SRV-04")
class StaysFull(Faulty):
    """Refuses for ever, once it was full."""

    def enqueue_when_full(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.__dict__["was_full"] = True
        return super().enqueue_when_full(envelopes)

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if "was_full" in self.__dict__:
            self.trip()
            raise Rejected("no room", ids=[each.id for each in envelopes])
        return super().enqueue(envelopes)


@faulty("SRV-04")
class LosesWhenFull(Faulty):
    """Answers that the lease is lost where there is no room for the new body."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        if self.full:
            self.trip()
            return frozenset(write.lease.receipt for write in writes)
        return super().checkpoint(writes)


@faulty("SRV-04")
class SaysLostWhenFull(Faulty):
    """Writes a checkpoint on a full server, and answers that its lease is lost."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().checkpoint(writes)
        if self.full:
            self.trip()
            lost |= {write.lease.receipt for write in writes}
        return lost


@faulty("SRV-04")
class CheckpointSwallowedWhenFull(Faulty):
    """Answers that a checkpoint is held where there was no room for the new body."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        if self.full:
            self.trip()
            return frozenset()
        return super().checkpoint(writes)


@faulty("SRV-04")
class AckSwallowedWhenFull(Faulty):
    """Answers that an ack is held though it couldn't be written, and gives the task out again."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        if self.full:
            self.trip()
            return self.release([msgspec.structs.replace(write, seq=write.seq + 1) for write in writes])
        return super().ack(writes, keep_for=keep_for)


@faulty("SRV-05")
class NoScriptCrash(Faulty):
    """Lets the server's error through when it doesn't know what was prepared on it any more."""

    def disturbed(self) -> None:
        self.__dict__["forgotten"] = True

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if self.__dict__.pop("forgotten", False):
            self.trip()
            raise RuntimeError("NOSCRIPT")
        return super().enqueue(envelopes)


@faulty("SRV-05")
class NeverPreparesAgain(Faulty):
    """Can't do again what was prepared once, when the server has forgotten it."""

    def disturbed(self) -> None:
        self.__dict__["forgotten"] = True

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        if "forgotten" in self.__dict__:
            self.trip()
            raise BrokerUnavailable("the statement isn't known")
        return super().extend(leases, lease_for=lease_for)


@faulty("SRV-05")
class ForgetsWhenDisturbed(Faulty):
    """Takes what is ready for something that a client prepared."""

    def disturbed(self) -> None:
        for task in [task for task in self._tasks.values() if task.state is State.READY]:
            self.trip()
            del self._tasks[task.id]


@faulty("SRV-05")
class AcksUndoneWhenDisturbed(Faulty):
    """Takes the last ack back when connections are dropped, as a transaction that wasn't committed."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        lost = super().ack(writes, keep_for=keep_for)
        self.__dict__["open"] = [write.lease.envelope for write in writes if write.lease.receipt not in lost]
        return lost

    def disturbed(self) -> None:
        if undone := self.__dict__.pop("open", []):
            self.trip()
            self.enqueue(undone)


@faulty("SRV-06")
class SilentWhenWeak(FaultyClient):
    """Has no warnings."""

    def warnings(self) -> Sequence[str]:
        self.trip()
        return []


@faulty("SRV-06")
class AlwaysWarns(FaultyClient):
    """Warns of every server in the same words."""

    def warnings(self) -> Sequence[str]:
        self.trip()
        return ["A server may lose tasks when it is set up badly"]
