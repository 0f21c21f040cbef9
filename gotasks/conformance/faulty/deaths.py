"""Faulty: deaths that are forgotten, shared or made up."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from gotasks.broker import Lease, State, Write
from gotasks.conformance.faulty import Faulty, faulty
from gotasks.memory import _Task


@faulty("DTH-01")
class DeathsNotCounted(Faulty):
    """No death is counted."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        if task.state is State.LEASED:
            task.deaths = -1
            self.trip()
        return super()._lease(task, now, lease_for)


@faulty("DTH-01")
class DeathsShared(Faulty):
    """A death counts for every task of the queue."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        if task.state is State.LEASED:
            for other in self._tasks.values():
                other.deaths += other is not task
            self.trip()
        return super()._lease(task, now, lease_for)


@faulty("DTH-01")
class DeliveriesAreDeaths(Faulty):
    """What is counted are leases, so a task has died before it was ever held."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        if task.state is not State.LEASED:
            task.deaths += 1
            self.trip()
        return super()._lease(task, now, lease_for)


@faulty("DTH-02")
class CheckpointKeepsDeaths(Faulty):
    """A checkpoint leaves the deaths as they are."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        deaths = {each.lease.envelope.id: each.lease.deaths for each in writes}
        lost = super().checkpoint(writes)
        for task_id, count in deaths.items():
            self._tasks[task_id].deaths = count
            self.trip()
        return lost


@faulty("DTH-02")
class ReleaseKeepsDeaths(Faulty):
    """A release leaves the deaths as they are."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        for write in writes:
            self._tasks[write.lease.envelope.id].deaths = write.lease.deaths
            self.trip()
        return lost


@faulty("DTH-03")
class RepeatForgivesDeaths(Faulty):
    """A checkpoint sets the deaths to 0 before it looks whether its receipt holds."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        for write in writes:
            task = self._tasks.get(write.lease.envelope.id)
            if task is not None and task.deaths:
                task.deaths = 0
                self.trip()
        return super().checkpoint(writes)


@faulty("DTH-03")
class ExtendForgivesDeaths(Faulty):
    """An extend sets the deaths to 0."""

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        for lease in leases:
            task = self._held(lease)
            if task is not None and task.deaths:
                task.deaths = 0
                self.trip()
        return super().extend(leases, lease_for=lease_for)


@faulty("DTH-04")
class NamedAreForgiven(Faulty):
    """What is acquired by its id has no deaths."""

    def _named(self, queue: str, ids: Collection[str], now: float) -> Iterator[_Task]:
        for task in super()._named(queue, ids, now):
            if task.state is State.LEASED:
                task.deaths = -1
                self.trip()
            yield task


@faulty("DTH-05")
class OnlyTheLivingDie(Faulty):
    """A lease under which nothing was ever written or extended doesn't count as a death."""

    def _held(self, lease: Lease) -> _Task | None:
        task = super()._held(lease)
        if task is not None:
            vars(task)["lived"] = True
        return task

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        if task.state is State.LEASED and not vars(task).pop("lived", False):
            task.deaths -= 1
            self.trip()
        return super()._lease(task, now, lease_for)


@faulty("DTH-05")
class UnheardIsHeldForEver(Faulty):
    """A lease doesn't run until its holder shows that it has got it."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        lease = super()._lease(task, now, lease_for)
        task.until = float("inf")
        self.trip()
        return lease
