"""Faulty: what only shows in some order of calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from gotasks.broker import Envelope, Lease, QueueStats, State, Write
from gotasks.conformance.faulty import Faulty, FaultyClient, faulty
from gotasks.errors import BrokerUnavailable
from gotasks.memory import _Task


@faulty("FSM-01")
class AnyHolderWrites(Faulty):
    """Takes a write from whoever held the task once, as long as somebody holds it."""

    def _held(self, lease: Lease) -> _Task | None:
        task = self._tasks.get(lease.envelope.id)
        if task is None or task.receipt is None:
            return None
        if task.receipt != lease.receipt:
            self.trip()
        return task


@faulty("FSM-01")
class LateAttemptsCount(Faulty):
    """Carries out a write with a lower seq than the last one's."""

    def _write(self, writes: Sequence[Write], change: Callable[[_Task, Write], None]) -> frozenset[str]:
        for each in writes:
            task = self._held(each.lease)
            if task is not None and each.seq < task.seq:
                self.trip()
                task.seq = each.seq - 1
        return super()._write(writes, change)


@faulty("FSM-01")
class PurgeTakesWhatIsOver(Faulty):
    """A purge removes tasks whose lease is over, too."""

    def purge(self, queue: str) -> int:
        with self._changed:
            held = list(self._leased[queue].values())
            for task in held:
                self.trip()
                self._end_lease(task)
                self._end(task, State.CANCELLED, keep_for=0)
        return super().purge(queue) + len(held)


@faulty("FSM-01")
class DeathsForEver(Faulty):
    """Never starts the count of deaths anew."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        return self._keeping(writes, super().checkpoint)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        return self._keeping(writes, super().release)

    def _keeping(
        self, writes: Sequence[Write], call: Callable[[Sequence[Write]], frozenset[str]]
    ) -> frozenset[str]:
        tasks = [task for each in writes if (task := self._held(each.lease)) is not None]
        deaths = [task.deaths for task in tasks]
        lost = call(writes)
        for task, count in zip(tasks, deaths, strict=True):
            if count:
                self.trip()
                task.deaths = count
        return lost


@faulty("FSM-01")
class MovedIsCountedTwice(Faulty):
    """Counts what was moved where it came from, too."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        for each in writes:
            if each.queue not in (None, each.lease.envelope.queue) and each.lease.receipt not in lost:
                self._moved.append(each.lease.envelope.queue)
        return lost

    def _empty(self) -> None:
        super()._empty()
        self._moved: list[str] = []

    def stats(self, queue: str) -> QueueStats:
        stats, more = super().stats(queue), self._moved.count(queue)
        if more:
            self.trip()
        return msgspec.structs.replace(stats, ready=(stats.ready or 0) + more)


@faulty("FSM-01")
class RecordKeepsOldBody(Faulty):
    """Keeps of a finished task the body that it had before its end."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self.trip()
        old = []
        for each in writes:
            task = self._held(each.lease)
            old.append(each if task is None else msgspec.structs.replace(each, body=task.body))
        return super().ack(old, keep_for=keep_for)


@faulty("FSM-01")
class DoneIsForgotten(Faulty):
    """Stores the id of a finished task again, though its record is kept."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        with self._changed:
            for each in envelopes:
                task = self._tasks.get(each.id)
                if task is not None and task.state is State.DONE:
                    self.trip()
                    del self._tasks[each.id]
        return super().enqueue(envelopes)


@faulty("FSM-01")
class ReceiptOutlivesRelease(Faulty):
    """Takes writes under a lease that a release has ended, until somebody else has the task."""

    def _end_lease(self, task: _Task) -> None:
        receipt = task.receipt
        super()._end_lease(task)
        task.receipt = receipt

    def _held(self, lease: Lease) -> _Task | None:
        task = super()._held(lease)
        if task is not None and task.state is not State.LEASED:
            self.trip()
        return task


@faulty("FSM-02")
class SwallowsCuts(FaultyClient):
    """Says that tasks are stored though the connection broke before the answer."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        try:
            return super().enqueue(envelopes)
        except BrokerUnavailable:
            self.trip()
            return {}


@faulty("FSM-02")
class TakesCutsForLost(FaultyClient):
    """Says that a write is lost when the connection broke before the answer."""

    def _write(self, call: object, writes: Sequence[Write]) -> frozenset[str]:
        try:
            return super()._write(call, writes)  # type: ignore[arg-type]
        except BrokerUnavailable:
            self.trip()
            return frozenset(each.lease.receipt for each in writes)


@faulty("FSM-02")
class SendsAgainAsNew(FaultyClient):
    """Sends an enqueue that was cut again, under another id."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        try:
            return super().enqueue(envelopes)
        except BrokerUnavailable:
            self.trip()
            return super().enqueue(
                [msgspec.structs.replace(each, id=f"{each.id}-again") for each in envelopes]
            )
