"""Faulty: looks in another order than that in which tasks leave, at what is due, and for none."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gotasks.broker import Record, State
from gotasks.conformance.faulty import Faulty, faulty
from gotasks.memory import _Task


class Sorted(Faulty):
    """Shows what is ready in an order of its own."""

    def order(self, tasks: Sequence[_Task]) -> list[_Task]:
        """Of all that is ready, as it was enqueued."""
        raise NotImplementedError

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        right = super().browse(queue, state=state, limit=1000)
        if state is not State.READY:
            return super().browse(queue, state=state, limit=limit, after=after)
        tasks = self.order(
            [each for each in self._tasks.values() if each.queue == queue and each.state is state]
        )
        ids = [each.id for each in tasks]
        if ids != [each.id for each in right]:
            self.trip()
        start = 0 if after is None else ids.index(after) + 1 if after in ids else len(ids)
        return [each.record() for each in tasks[start : start + limit]]


@faulty("BRW-08")
class BrowseIgnoresPriority(Sorted):
    """Shows what is ready as if all had the same priority."""

    def order(self, tasks: Sequence[_Task]) -> list[_Task]:
        return sorted(tasks, key=lambda each: each.place)


@faulty("BRW-08")
class BrowseByArrival(Sorted):
    """Shows what is ready in the order in which it was enqueued, though some was put back since."""

    def order(self, tasks: Sequence[_Task]) -> list[_Task]:
        return sorted(tasks, key=lambda each: -each.priority)


@faulty("BRW-08")
class PagesByPlace(Faulty):
    """Shows after an id only what came after it, though something of lower priority came before."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        if after is None or state is not State.READY or after not in self._tasks:
            return super().browse(queue, state=state, limit=limit, after=after)
        found = super().browse(queue, state=state, limit=1000, after=after)
        right = [each for each in found if self._tasks[each.id].place > self._tasks[after].place]
        if right != found:
            self.trip()
        return right[:limit]


class NotDue(Faulty):
    """A look at some states doesn't move what is due."""

    lazy: frozenset[State] = frozenset()
    asleep = False

    def _make_due_ready(self, queue: str, now: float) -> None:
        if not self.asleep:
            super()._make_due_ready(queue, now)

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        if state in self.lazy:
            if any(each[0] <= time.monotonic() for each in self._scheduled[queue]):
                self.trip()
            self.asleep = True
        try:
            return super().browse(queue, state=state, limit=limit, after=after)
        finally:
            self.asleep = False


@faulty("BRW-09")
class BrowseHidesDue(NotDue):
    """Shows what is due as scheduled, until somebody acquires."""

    lazy = frozenset({State.READY, State.SCHEDULED})


@faulty("BRW-09")
class BrowseScheduledHasDue(NotDue):
    """Shows what is due among what is scheduled, until somebody looks at what is ready."""

    lazy = frozenset({State.SCHEDULED})


@faulty("BRW-09")
class BrowseDueNowhere(Faulty):
    """What is due is shown by the first look at it only."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        found = super().browse(queue, state=state, limit=limit, after=after)
        for each in found:
            task = self._tasks[each.id]
            if state is State.READY and task.until:
                self.trip()
                self.evict(task.id)
        return found


@faulty("BRW-10")
class BrowseZeroIsAll(Faulty):
    """A browse for 0 shows all."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        if limit == 0:
            self.trip()
        return super().browse(queue, state=state, limit=limit or 1000, after=after)
