"""Faulty: names that a server folds, cuts, joins or takes for patterns."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import msgspec

from gotasks.broker import Envelope, Lease, QueueStats
from gotasks.conformance.faulty import Faulty, faulty


class _Renamed(Faulty):
    """Queues are stored under another name, `stored_as`. Leases show the name that was asked for."""

    def stored_as(self, queue: str) -> str:
        raise NotImplementedError

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        return super().enqueue(
            [msgspec.structs.replace(each, queue=self._changed_name(each.queue)) for each in envelopes]
        )

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(self.stored_as(queue), limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        shown = [msgspec.structs.replace(each.envelope, queue=queue) for each in leases]
        return [
            msgspec.structs.replace(*each[:1], envelope=each[1]) for each in zip(leases, shown, strict=True)
        ]

    def stats(self, queue: str) -> QueueStats:
        return super().stats(self.stored_as(queue))

    def _changed_name(self, queue: str) -> str:
        stored = self.stored_as(queue)
        if stored != queue:
            self.trip()
        return stored


@faulty("NAM-02")
class CollationFold(_Renamed):
    """The column of queues compares without case."""

    def stored_as(self, queue: str) -> str:
        return queue.lower()


@faulty("NAM-02")
class LongNameCut(_Renamed):
    """A queue's name is cut to 127 characters."""

    def stored_as(self, queue: str) -> str:
        return queue[:127]


@faulty("NAM-01")
class PathNames(_Renamed):
    """Queues are folders: dots at the end of a name mean nothing."""

    def stored_as(self, queue: str) -> str:
        return queue.rstrip(".")


@faulty("NAM-01")
class KeyConcat(Faulty):
    """A body's key is queue and id with a dash between them."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = super().enqueue(envelopes)
        for each in envelopes:
            for task in self._tasks.values():
                if task.id != each.id and f"{task.queue}-{task.id}" == f"{each.queue}-{each.id}":
                    self.trip()
                    task.body = each.body
        return there


@faulty("NAM-01")
class LikeCounts(Faulty):
    """Counts by a pattern, in which an underscore is any character."""

    def stats(self, queue: str) -> QueueStats:
        pattern = re.compile(re.escape(queue).replace("_", "."))
        names = [each for each in {task.queue for task in self._tasks.values()} if pattern.fullmatch(each)]
        if len(names) > 1:
            self.trip()
        return QueueStats(
            ready=sum(super(LikeCounts, self).stats(each).ready or 0 for each in names), scheduled=0, leased=0
        )


@faulty("NAM-02")
class IdsFold(Faulty):
    """The primary key compares ids without case."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        known = {each.lower(): each for each in self._tasks}
        folded = {each.id: known[each.id.lower()] for each in envelopes if each.id.lower() in known}
        if folded:
            self.trip()
        super().enqueue([each for each in envelopes if each.id not in folded])
        return folded


@faulty("NAM-02")
class IdsCut(Faulty):
    """Ids are cut to 63 characters; what then has a known one is stored in its place."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        cut = [msgspec.structs.replace(each, id=each.id[:63]) for each in envelopes]
        if cut != list(envelopes):
            self.trip()
        super().enqueue(cut)
        return {}
