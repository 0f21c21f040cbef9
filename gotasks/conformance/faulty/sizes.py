"""Faulty: calls of which only the beginning is done, and columns that are too short or hold text only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from gotasks.broker import Lease, Record, State, Write
from gotasks.conformance.faulty import Faulty, faulty

#: What a column of 64 KiB holds. Bytes.
COLUMN = 65_535


def _with_body(write: Write, body: bytes) -> Write:
    return msgspec.structs.replace(write, body=body)


def _as_text(body: bytes) -> bytes:
    return body.decode("utf-8", "replace").encode()


@faulty("BIG-01")
class LargeBatchCheckpoint(Faulty):
    """A checkpoint of more than a hundred writes the first hundred."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        if len(writes) > 100:
            self.trip()
        return super().checkpoint(writes[:100])


@faulty("BIG-01")
class LargeBatchExtend(Faulty):
    """An extend of more than five hundred extends the first five hundred."""

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        if len(leases) > 500:
            self.trip()
        return super().extend(leases[:500], lease_for=lease_for)


@faulty("BIG-01")
class LargeBatchRelease(Faulty):
    """A release of more than five hundred puts the others back with the body that they had."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        if len(writes) > 500:
            self.trip()
        old = [_with_body(each, each.lease.envelope.body) for each in writes[500:]]
        return super().release([*writes[:500], *old])


@faulty("BIG-01")
class LargeBatchAckSilent(Faulty):
    """An ack of more than five hundred ends the first five hundred, and says that all are acked."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        if len(writes) > 500:
            self.trip()
        return super().ack(writes[:500], keep_for=keep_for)


@faulty("BIG-02")
class LargeGet(Faulty):
    """A get of more than a hundred ids finds the first hundred."""

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        if len(ids) > 100:
            self.trip()
        return super().get([*ids][:100])


@faulty("BIG-03")
class LargeCancel(Faulty):
    """A cancel of more than a hundred ids ends the first hundred."""

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        if len(ids) > 100:
            self.trip()
        return super().cancel([*ids][:100], keep_for=keep_for)


@faulty("BIG-03")
class LargeCancelBoasts(Faulty):
    """A cancel of more than a hundred ids ends the first hundred, and says that it ended all."""

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        if len(ids) > 100:
            self.trip()
        super().cancel([*ids][:100], keep_for=keep_for)
        return ids


@faulty("BIG-04")
class LargeAcquireByIds(Faulty):
    """An acquire with more than a hundred ids gives the first hundred."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if ids is not None and len(ids) > 100:
            self.trip()
            ids = [*ids][:100]
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)


@faulty("BIG-04")
class ManyIdsAreAll(Faulty):
    """An acquire with more than a hundred ids leases the rest of the queue too, and keeps that to itself."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        if ids is not None and len(ids) > 100:
            self.trip()
            super().acquire(queue, limit=self.limits.max_batch, wait=0, lease_for=lease_for)
        return leases


@faulty("BIG-05")
class CheckpointTruncates(Faulty):
    """A checkpoint cuts a body at 64 KiB."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        if any(len(each.body) > COLUMN for each in writes):
            self.trip()
        return super().checkpoint([_with_body(each, each.body[:COLUMN]) for each in writes])


@faulty("BIG-05")
class MoveTruncates(Faulty):
    """A move into another queue cuts a body at 64 KiB."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        if any(len(each.body) > COLUMN for each in writes if each.queue is not None):
            self.trip()
        return super().release(
            [_with_body(each, each.body[:COLUMN]) if each.queue is not None else each for each in writes]
        )


@faulty("BIG-06")
class AckBodyText(Faulty):
    """The final body is kept as text, with whatever isn't text replaced."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self.trip()
        return super().ack([_with_body(each, _as_text(each.body)) for each in writes], keep_for=keep_for)


@faulty("BIG-06")
class AckTruncates(Faulty):
    """The final body is kept in a column of 64 KiB."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        if any(len(each.body) > COLUMN for each in writes):
            self.trip()
        return super().ack([_with_body(each, each.body[:COLUMN]) for each in writes], keep_for=keep_for)


@faulty("BIG-06")
class GetBodyText(Faulty):
    """A record of a task that lives holds its body as text, with whatever isn't text replaced."""

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        self.trip()
        return {
            each: msgspec.structs.replace(record, body=_as_text(record.body))
            if record.state is not State.DONE
            else record
            for each, record in super().get(ids).items()
        }


@faulty("BIG-07")
class BrowseBodyText(Faulty):
    """Browse shows a body as text, with whatever isn't text replaced."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        self.trip()
        return [
            msgspec.structs.replace(each, body=_as_text(each.body))
            for each in super().browse(queue, state=state, limit=limit, after=after)
        ]


@faulty("BIG-07")
class BrowseTruncates(Faulty):
    """Browse shows the first 64 KiB of a body."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        records = super().browse(queue, state=state, limit=limit, after=after)
        if any(len(each.body) > COLUMN for each in records):
            self.trip()
        return [msgspec.structs.replace(each, body=each.body[:COLUMN]) for each in records]
