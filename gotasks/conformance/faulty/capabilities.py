"""Faulty: brokers that claim too little, or too much, and URLs that say more than they should."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from gotasks.broker import BrokerURL, Capability, Envelope, Lease, Record, State, Write
from gotasks.conformance.faulty import Faulty, FaultyClient, faulty
from gotasks.memory import _ALL, _Task


class _Under(Faulty):
    """Has `hidden`, and doesn't claim it."""

    hidden: ClassVar[Capability]

    def __init__(self, capabilities: Capability = _ALL) -> None:
        super().__init__(capabilities & ~self.hidden)

    def as_if_claimed(self, method: str, *args: Any, **options: Any) -> Any:
        """The method of a broker that does claim it."""
        self.trip()
        claimed = self.capabilities
        self.capabilities |= self.hidden
        try:
            return getattr(super(), method)(*args, **options)
        finally:
            self.capabilities = claimed


@faulty("CAP-01", "DLY-01")
class UnderClaimDelay(_Under):
    """Delays tasks, and doesn't claim DELAY."""

    hidden = Capability.DELAY

    def refuse_unclaimed(self, items: Sequence[Envelope] | Sequence[Write]) -> None:
        if any(each.delay for each in items):
            self.trip()


@faulty("CAP-01")
class ReleaseDelays(_Under):
    """Refuses a delay at enqueue, and takes one at a release."""

    hidden = Capability.DELAY

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        return frozenset(self.as_if_claimed("release", writes))


@faulty("CAP-01", "PRI-01")
class SilentFallback(_Under):
    """Has no priorities, and stores a task that asks for one without a word."""

    hidden = Capability.PRIORITY

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if any(each.priority for each in envelopes):
            self.trip()
        return super().enqueue([msgspec.structs.replace(each, priority=0) for each in envelopes])


@faulty("CAP-01")
class RefusesTooLate(_Under):
    """Stores what comes before an envelope that it refuses."""

    hidden = Capability.PRIORITY

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there: dict[str, str] = {}
        for each in envelopes:
            if each.priority:
                self.trip()
            there |= super().enqueue([each])
        return there


@faulty("CAP-01", "UNQ-01")
class UnderClaimUnique(_Under):
    """Knows unique keys, and doesn't claim UNIQUE."""

    hidden = Capability.UNIQUE

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        return dict(self.as_if_claimed("enqueue", envelopes))


@faulty("CAP-01", "REC-01")
class UnderClaimRecords(_Under):
    """Answers `get`, and doesn't claim RECORDS."""

    hidden = Capability.RECORDS

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        return dict(self.as_if_claimed("get", ids))


@faulty("CAP-01", "BRW-01")
class UnderClaimBrowse(_Under):
    """Can be browsed, and doesn't claim BROWSE."""

    hidden = Capability.BROWSE

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        return list(self.as_if_claimed("browse", queue, state=state, limit=limit, after=after))


@faulty("CAP-01", "BRW-03")
class UnderClaimById(_Under):
    """`acquire` takes ids and ignores them, though BROWSE isn't claimed."""

    hidden = Capability.BROWSE

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if ids is not None:
            self.trip()
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for)


@faulty("CAP-01", "CAN-01")
class UnderClaimCancel(_Under):
    """Cancels, and doesn't claim CANCEL."""

    hidden = Capability.CANCEL

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        return list(self.as_if_claimed("cancel", ids, keep_for=keep_for))


@faulty("CAP-01")
class WrongRefusal(_Under):
    """Refuses a cancel by NotImplementedError, which nobody expects of a broker."""

    hidden = Capability.CANCEL

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        self.trip()
        raise NotImplementedError


@faulty("CAP-01")
class UnderClaimTransactional(Faulty):
    """Takes any connection for one of its own, and doesn't claim TRANSACTIONAL."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.trip()
        return self.enqueue(envelopes)


@faulty("CAP-01", "TXN-08")
class UnderClaimTwin(Faulty):
    """Takes any connection for one of its own on an event loop, and doesn't claim TRANSACTIONAL."""

    async def aenqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.trip()
        return self.enqueue(envelopes)


@faulty("CAP-01", "DLV-07")
class UnderClaimIdempotent(_Under):
    """Recognises an id that is there, and doesn't claim IDEMPOTENT."""

    hidden = Capability.IDEMPOTENT

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = super().enqueue(envelopes)
        if there:
            self.trip()
        return there


@faulty("CAP-01", "LSE-17")
class UnderClaimTimedLease(_Under):
    """Its leases end by time, and it doesn't claim TIMED_LEASE."""

    hidden = Capability.TIMED_LEASE

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        self.trip()
        return super()._lease(task, now, lease_for)


@faulty("CAP-01", "CAP-07")
class UnderClaimShared(Faulty):
    """Its objects share their tasks, and it doesn't claim SHARED."""

    first: ClassVar[dict[str, Any]] = {}

    def _empty(self) -> None:
        super()._empty()
        own = {"capabilities": self.capabilities, "_closed": False}
        if self.first:
            self.trip()
            vars(self).update({**self.first, **own})
        else:
            self.first.update(vars(self))


@faulty("CAP-01", "HND-01")
class UnderClaimHandoff(Faulty):
    """A checkpoint puts the task back, and HANDOFF isn't claimed."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        claimed, self.capabilities = self.capabilities, self.capabilities | Capability.HANDOFF
        self.trip()
        try:
            return super().checkpoint(writes)
        finally:
            self.capabilities = claimed


@faulty("CAP-07")
class OverClaimShared(Faulty):
    """Claims SHARED, and each object has queues of its own."""

    def __init__(self, capabilities: Capability = _ALL) -> None:
        self.trip()
        super().__init__(capabilities | Capability.SHARED)


@faulty("CAP-03")
class ClaimsByMood(Faulty):
    """Every second object claims less than the first."""

    count = 0

    def __init__(self, capabilities: Capability = _ALL) -> None:
        type(self).count += 1
        self.trip()
        super().__init__(capabilities & ~Capability.CANCEL if self.count % 2 else capabilities)


@faulty("CAP-03")
class LimitsByMood(Faulty):
    """Every object states another limit."""

    count = 500

    def __init__(self, capabilities: Capability = _ALL) -> None:
        type(self).count += 1
        self.trip()
        super().__init__(capabilities)
        self.limits = msgspec.structs.replace(self.limits, max_batch=self.count)


@faulty("CAP-03")
class BatchLie(Faulty):
    """Declares calls of a thousand, and leaves what is beyond nine hundred."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if len(envelopes) > 900:
            self.trip()
        return super().enqueue(envelopes[:900])


@faulty("CAP-04")
class AnyParameter(Faulty):
    """Takes a URL with any parameter."""

    @classmethod
    def from_url(cls, url: BrokerURL) -> AnyParameter:
        if url.params:
            cls.trip()
        return cls()


@faulty("CAP-04")
class OldApi(Faulty):
    """Was written for another version of the contract."""

    api = 0

    def _empty(self) -> None:
        self.trip()
        super()._empty()


@faulty("CAP-05")
class ConnectsAtOnce(FaultyClient):
    """Connects as soon as it is made."""

    def __init__(self, url: BrokerURL) -> None:
        super().__init__(url)
        self.trip()
        self.stats("")


@faulty("CAP-06")
class PasswordInRepr(FaultyClient):
    """Shows the whole URL in its repr."""

    def __init__(self, url: BrokerURL) -> None:
        super().__init__(url)
        self.given = url.raw

    def __repr__(self) -> str:
        self.trip()
        return f"PasswordInRepr({self.given!r})"


@faulty("CAP-06")
class PasswordInRefusal(FaultyClient):
    """Shows the whole URL in the error for a parameter that it doesn't know."""

    @classmethod
    def from_url(cls, url: BrokerURL) -> PasswordInRefusal:
        try:
            return super().from_url(url)
        except ValueError as error:
            cls.trip()
            raise type(error)(f"{url.raw}: {error}") from None
