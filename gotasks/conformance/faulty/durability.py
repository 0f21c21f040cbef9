"""Faulty: what isn't on disk when it is confirmed, or is no longer what it was when it comes from there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from gotasks.broker import Envelope, State, Write
from gotasks.conformance.faulty import Faulty, faulty

Holdings = list[dict[str, Any]]


class _Altering(Faulty):
    """What it stores comes back from the disk as `alter` makes it; each that it changes is a harm."""

    def alter(self, task: dict[str, Any]) -> dict[str, Any] | None:
        """The task as it comes back; None: it doesn't."""
        raise NotImplementedError

    def restore(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        altered = [self.alter(dict(each)) for each in tasks]
        if altered != list(tasks):
            self.trip()
        super().restore([each for each in altered if each is not None])


@faulty("SRV-02", "CKP-08", "NRE-07")
class AckBeforeFsync(Faulty):
    """Answers first and writes to the disk a little later."""

    lag = 0.5

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.trip()
        return super().enqueue(envelopes)


@faulty("SRV-01", "SRV-02", "CKP-08", "DLY-04")
class VolatileState(_Altering):
    """Keeps everything in memory only."""

    def alter(self, task: dict[str, Any]) -> dict[str, Any] | None:
        return None


@faulty("SRV-01")
class LeasesInMemory(_Altering):
    """Keeps receipts in memory only: after a restart held tasks are ready, and their holders' writes are lost."""

    def alter(self, task: dict[str, Any]) -> dict[str, Any] | None:
        return {**task, "receipt": None, "state": State.READY} if task["state"] is State.LEASED else task


@faulty("SRV-01")
class OrderForgotten(_Altering):
    """Gives ready tasks out in the reverse order after a restart."""

    def alter(self, task: dict[str, Any]) -> dict[str, Any] | None:
        return {**task, "place": -task["place"]} if task["state"] is State.READY else task


@faulty("SRV-01")
class MovesInMemory(Faulty):
    """Has a task that was moved to another queue back in its old one after a restart."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        for write in writes:
            if write.queue is not None:
                self._tasks[write.lease.envelope.id].origin = write.lease.envelope.queue  # type: ignore[attr-defined]
        return lost

    def restore(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        moved = [{**each, "queue": each.get("origin", each["queue"])} for each in tasks]
        if moved != list(tasks):
            self.trip()
        super().restore(moved)


@faulty("SRV-01", "SRV-02", "CKP-08", "NRE-07")
class CheckpointsInMemory(Faulty):
    """Keeps the body of the enqueue on disk; those of checkpoints in memory only."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        for write in writes:
            task = self._held(write.lease)
            if task is not None and not hasattr(task, "first"):
                task.first = task.body  # type: ignore[attr-defined]
        return super().checkpoint(writes)

    def restore(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        old = [{**each, "body": each.get("first", each["body"])} for each in tasks]
        if old != list(tasks):
            self.trip()
        super().restore(old)


@faulty("SRV-01")
class DeathsInMemory(_Altering):
    """Starts to count deaths anew after a restart."""

    def alter(self, task: dict[str, Any]) -> dict[str, Any] | None:
        return {**task, "deaths": 0}


@faulty("SRV-01")
class RestartIsADeath(_Altering):
    """Counts a restart as a death of tasks whose leases were over before."""

    def alter(self, task: dict[str, Any]) -> dict[str, Any] | None:
        return {**task, "deaths": task["deaths"] + 1} if task["state"] is State.LEASED else task


@faulty("SRV-01", "DLY-04")
class DelayInMemory(_Altering):
    """Keeps what is scheduled in memory only."""

    def alter(self, task: dict[str, Any]) -> dict[str, Any] | None:
        return None if task["state"] is State.SCHEDULED else task


@faulty("SRV-01")
class RecordsInMemory(_Altering):
    """Keeps the records of done tasks in memory only."""

    def alter(self, task: dict[str, Any]) -> dict[str, Any] | None:
        return None if task["state"] is State.DONE else task


@faulty("DLY-04")
class DelayForgotten(_Altering):
    """Makes what is scheduled ready at a restart."""

    def alter(self, task: dict[str, Any]) -> dict[str, Any] | None:
        return {**task, "state": State.READY} if task["state"] is State.SCHEDULED else task


@faulty("DLY-04")
class DelayAnew(_Altering):
    """Begins with the whole delay again at a restart."""

    def alter(self, task: dict[str, Any]) -> dict[str, Any] | None:
        return {**task, "until": time.monotonic() + 2.4} if task["state"] is State.SCHEDULED else task


@faulty("SRV-02", "NRE-07")
class ResurrectAcked(Faulty):
    """Has tasks that were acked ready again after a kill."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        before = [dict(vars(task)) for write in writes if (task := self._held(write.lease)) is not None]
        self.__dict__.setdefault("graves", []).extend(before)
        return super().ack(writes, keep_for=keep_for)

    def holdings(self) -> Holdings:
        graves = [{**each, "receipt": None, "state": State.READY} for each in self.__dict__.get("graves", [])]
        return super().holdings() + [{**each, "dead": True} for each in graves]

    def restore(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        if any("dead" in each for each in tasks):
            self.trip()
        super().restore(tasks)


@faulty("SRV-02", "CKP-08")
class TornByKill(_Altering):
    """Has only the first half of a body on the disk."""

    def alter(self, task: dict[str, Any]) -> dict[str, Any] | None:
        return {**task, "body": task["body"][: len(task["body"]) // 2]}
