"""Rounds: a worker that does the same each time, although it has many threads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from gotasks import App, ArgsMap, step
from gotasks.broker import Lease, Write
from gotasks.memory import MemoryBroker
from gotasks.run import Commit
from gotasks.worker.worker import Worker
from tests.backends.contract import eventually

#: Nothing takes that long. Seconds.
_PATIENCE = 20.0

_SLOTS = 10
_QUEUE = "guarded"


class Rounds(MemoryBroker):
    """A broker that answers when the worker can do nothing more without its answer, so that it groups what it can.

    A step of a round is begun in all slots before it is ended in one. That one's write is under way, and after the last
    step its slot has asked for the next task, before the others end; and it is answered when all their writes wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()  #: those that carried something
        self._running = threading.Barrier(_SLOTS, self._step_begins)
        self._given = 0  #: tasks that the worker got

    def work(self, *, steps: int, rounds: int) -> Mapping[str, float]:
        """A worker on so many rounds of tasks: the calls for each task."""
        app = App(self, task_ttl=0)
        app.register("job", *(step(self._step, name=f"step-{number}") for number in range(steps)))
        queue = app.queue(_QUEUE, max_limit=_SLOTS)
        queue.enqueue_many("job", [{}] * (rounds * _SLOTS))
        worker = Worker(app, {_QUEUE: queue.options}, grace=_PATIENCE)
        self._free = worker._slots[_QUEUE]._free
        put = worker._committer.put

        def noted(commit: Commit) -> None:
            put(commit)
            self._written.release()

        worker._committer.put = noted  # type: ignore[method-assign]
        with worker:
            eventually(
                lambda: self.calls["acked"] == rounds * _SLOTS,
                within=2 * _PATIENCE,
                what="the end of the work",
            )
        app.close()
        return {name: self.calls[name] / (rounds * _SLOTS) for name in ("acquire", "checkpoint", "ack")}

    def _step(self, args: ArgsMap) -> None:
        first = self._running.wait(_PATIENCE) == 0
        if not first:
            assert self._one_writes.wait(_PATIENCE)

    def _step_begins(self) -> None:
        """All slots are at a handler's begin."""
        self._one_writes = threading.Event()
        self._asked = threading.Event()
        self._written = threading.Semaphore(0)

    def _hold(self, *, last: bool) -> None:
        """A write is under way: the first of its step waits for the others."""
        if self._one_writes.is_set():
            return
        assert not last or self._asked.wait(_PATIENCE)
        self._one_writes.set()
        for _ in range(_SLOTS):
            assert self._written.acquire(timeout=_PATIENCE)

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if self._given and self._given % _SLOTS == 0:  # the next round begins when this one is over
            self._asked.set()
            eventually(lambda: self._round_is_over(limit), within=_PATIENCE, what="the end of a round")
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        self.calls["acquire"] += bool(leases)
        self._given += len(leases)
        return leases

    def _round_is_over(self, asked_for: int) -> bool:
        return self.calls["acked"] == self._given and self._free.qsize() + asked_for >= _SLOTS

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        self._hold(last=False)
        self.calls["checkpoint"] += 1
        return super().checkpoint(writes)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self._hold(last=True)
        lost = super().ack(writes, keep_for=keep_for)
        self.calls["ack"] += 1
        self.calls["acked"] += len(writes)
        return lost
