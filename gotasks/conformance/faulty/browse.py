"""Faulty: a look that shows too little, too much, or the wrong things, and one that changes what it looks at."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import msgspec

from gotasks.broker import Lease, Record, State
from gotasks.conformance.faulty import Faulty, faulty
from gotasks.errors import Unsupported


@faulty("BRW-01")
class OverClaimBrowse(Faulty):
    """Claims BROWSE and shows nothing."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        self.trip()
        return []


@faulty("BRW-01")
class BrowseIgnoresAfter(Faulty):
    """Shows the first page again and again."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        if after is not None:
            self.trip()
        return super().browse(queue, state=state, limit=limit)


@faulty("BRW-01")
class BrowseById(Faulty):
    """Shows a queue in the order of its ids."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        records = sorted(
            super().browse(queue, state=state, limit=1000), key=lambda each: each.id[::-1], reverse=True
        )
        self.trip()
        ids = [each.id for each in records]
        start = ids.index(after) + 1 if after in ids else 0
        return records[start : start + limit]


@faulty("BRW-01")
class BrowseNoBody(Faulty):
    """Shows ids, and no bodies."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        self.trip()
        found = super().browse(queue, state=state, limit=limit, after=after)
        return [msgspec.structs.replace(each, body=b"") for each in found]


@faulty("BRW-02")
class BrowseAcquires(Faulty):
    """Looks at a ready task by acquiring it and putting it back, as one that was left by its holder."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        found = super().browse(queue, state=state, limit=limit, after=after)
        for each in found:
            if each.state is State.READY:
                self.trip()
                self._tasks[each.id].deaths += 1
        return found


@faulty("BRW-02")
class BrowseShowsAll(Faulty):
    """Shows what is held among what is ready."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        found = super().browse(queue, state=state, limit=limit, after=after)
        held = super().browse(queue, state=State.LEASED, limit=limit) if state is State.READY else []
        if held:
            self.trip()
        return [*found, *held]


@faulty("BRW-02")
class BrowseEndsLease(Faulty):
    """Looking at what is held takes it from its holder."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        found = super().browse(queue, state=state, limit=limit, after=after)
        for each in found:
            if each.state is State.LEASED:
                self.trip()
                self._tasks[each.id].receipt = ""
        return found


@faulty("BRW-03")
class OverClaimById(Faulty):
    """Claims BROWSE, and `acquire` with ids gives whatever is next."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if ids is not None:
            self.trip()
        return super().acquire(queue, limit=limit, wait=0 if ids else wait, lease_for=lease_for)


@faulty("BRW-03")
class ByIdDueOnly(Faulty):
    """`acquire` with ids doesn't find what is scheduled."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if ids is not None:
            due = [
                each
                for each in ids
                if each not in self._tasks or self._tasks[each].state is not State.SCHEDULED
            ]
            if due != list(ids):
                self.trip()
            ids = due
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)


@faulty("BRW-03")
class ByIdSteals(Faulty):
    """`acquire` with ids takes a task from its holder."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        for each in ids or ():
            task = self._tasks.get(each)
            if task is not None and task.queue == queue and task.state is State.LEASED:
                self.trip()
                task.until = 0.0
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)


@faulty("BRW-03")
class ByIdForgetsDeaths(Faulty):
    """`acquire` with ids counts no death."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        if ids is not None and any(each.deaths for each in leases):
            self.trip()
        return [msgspec.structs.replace(each, deaths=0) for each in leases] if ids is not None else leases


@faulty("BRW-03")
class ByIdLosesOthers(Faulty):
    """`acquire` with ids goes through the queue, and throws away what it isn't looking for."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        for task in [*self._tasks.values()] if ids is not None else ():
            if task.queue == queue and task.state is State.READY and task.id not in (ids or ()):
                self.trip()
                del self._tasks[task.id]
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)


@faulty("BRW-04")
class ByIdNoLimit(Faulty):
    """`acquire` with ids gives all of them, whatever the limit."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if ids is not None and len(ids) > limit:
            self.trip()
        most = limit if ids is None else len(ids)
        return super().acquire(queue, limit=most, wait=wait, lease_for=lease_for, ids=ids)


@faulty("BRW-04")
class ByIdWaits(Faulty):
    """`acquire` with ids waits for them to come."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        if ids is not None and not leases and wait:
            self.trip()
            time.sleep(wait)
        return leases


@faulty("BRW-05")
class BrowseStartsAgain(Faulty):
    """Shows all from the start after an id that it doesn't find."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        ids = [each.id for each in super().browse(queue, state=state, limit=1000)]
        if after is not None and after not in ids:
            self.trip()
            after = None
        return super().browse(queue, state=state, limit=limit, after=after)


@faulty("BRW-06")
class BrowseDone(Faulty):
    """Shows nothing where what is done is asked for, as if nothing ever were."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        try:
            return super().browse(queue, state=state, limit=limit, after=after)
        except Unsupported:
            self.trip()
            return []


@faulty("BRW-07")
class ByIdRaces(Faulty):
    """`acquire` with ids looks whether a task is free, and takes it a moment later."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        free = [
            self._tasks[each] for each in ids or () if each in self._tasks and not self._tasks[each].receipt
        ]
        time.sleep(0.002 if free else 0)
        for task in free:
            if task.receipt:
                self.trip()
                task.until = 0.0
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
