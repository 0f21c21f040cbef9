"""Taker: an acquire. It takes from the view what may be leased, and asks the server for it, task by task."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Sequence

from gotasks.broker import Envelope, Lease
from gotasks_nats.entry import Entry
from gotasks_nats.session import Overtaken, Session
from gotasks_nats.view import Task

#: Of so many times as many tasks as it wants one chooses that others snatch tasks from.
_CHOICE = 8


class Taker:
    """For one call. `receipt` gives a new one each time."""

    def __init__(self, session: Session, queue: str, lease_for: float, receipt: Callable[[], str]) -> None:
        self._session, self._view = session, session.view
        self._queue, self._lease_for, self._receipt = queue, lease_for, receipt
        self._written = 0  #: the sequence of the last lease

    async def ready(self, limit: int) -> list[Lease]:
        """What can be leased now. Where others are as quick, not always the first ones are tried."""
        crowded = False
        while True:
            wanted = limit * _CHOICE if crowded else limit
            taken = self._view.take(self._queue, self._session.clock.now(), wanted)
            if not taken:
                return []
            if crowded:
                random.shuffle(taken)
                taken.sort(key=lambda task: -task.entry.priority)
            tried = taken[:limit]
            self._view.back(taken[limit:])
            try:
                leases = await self._lease_all(tried)
            finally:
                self._view.back(tried)
            if leases:
                return leases
            crowded = True
            await self._session.sync()

    async def named(self, limit: int, ids: Collection[str]) -> list[Lease]:
        """What can be leased of these, due or not."""
        leases: list[Lease] = []
        wanted = list(dict.fromkeys(ids))
        while len(leases) < limit:
            tasks = [self._view.tasks[each] for each in wanted if each in self._view.tasks]
            fit = [each for each in tasks if self._fits(each)][: limit - len(leases)]
            if not fit:
                break
            leases += await self._lease_all(fit)
            got = {lease.envelope.id for lease in leases}
            wanted = [each for each in wanted if each not in got]
            await self._session.sync()
        return leases

    def _fits(self, task: Task) -> bool:
        entry = task.entry
        return entry.queue == self._queue and not entry.ended and not task.held(self._session.clock.now())

    async def _lease_all(self, tasks: Sequence[Task]) -> list[Lease]:
        """The leases of those that nobody else was quicker to take, in their order."""
        leases: list[Lease] = []
        try:
            await self._session.each(tasks, lambda each: self._lease(each, leases))
        except Exception:
            if not leases:
                raise  # else there is no more to be had, and what was leased before has to be returned
        # If the connection breaks now they end as deaths: whoever has leases has a connection to write under them.
        await self._session.reach(self._written)
        order = {task.id: place for place, task in enumerate(tasks)}
        return sorted(leases, key=lambda lease: order[lease.envelope.id])

    async def _lease(self, task: Task, leases: list[Lease]) -> None:
        """Append its lease, unless somebody else was first; then the view is told how it is."""
        there = await self._session.last(task.id)
        if there is None:
            self._view.gone(task.id, task.seq)
            return
        if there.task.seq != task.seq:
            self._view.put(there.task)
            return
        entry = Entry(
            queue=task.entry.queue,
            state="leased",
            priority=task.entry.priority,
            receipt=self._receipt(),
            deaths=task.entry.deaths + (task.entry.state == "leased"),  # its last lease ended unsettled
            lasts=self._lease_for,
        )
        asked = time.monotonic()
        try:
            written = await self._session.write(task.id, entry, there.body, instead_of=task.seq)
        except Overtaken:
            return
        self._written = max(self._written, written)
        envelope = Envelope(id=task.id, queue=entry.queue, body=there.body, priority=entry.priority)
        deadline = asked + self._lease_for if math.isfinite(self._lease_for) else math.inf
        leases.append(Lease(envelope=envelope, receipt=entry.receipt, deaths=entry.deaths, deadline=deadline))
