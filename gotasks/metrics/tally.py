"""Tally: listens to the events of an app and adds up, in plain Python.

A worker emits several events for each of its tasks, more than 15,000 a second, so listening to one has to cost a
microsecond or less. Nothing here knows of Prometheus; its metrics are made of the sums when somebody asks.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from gotasks import codec
from gotasks.events import (
    BrokerDown,
    Checkpointed,
    Event,
    LeaseLost,
    QueueMeasured,
    StepDone,
    StepRetried,
    TaskBuried,
    TaskCrashed,
    TaskReleased,
    TaskStarted,
    TaskSucceeded,
)
from gotasks.metrics.totals import (
    BROKER_FAILURES,
    BUCKETS,
    CHECKPOINTS,
    CRASHES,
    EXECUTIONS,
    FATAL,
    LOST_LEASES,
    RELEASED,
    RETRIES,
    STEPS,
    WAITS,
    Cells,
    Family,
    Key,
    Size,
    Totals,
)

#: The job's label where a task names a job that isn't registered here: anybody can write anything into a queue.
UNKNOWN = "unknown"

#: What a broker is asked for; any other word counts as "other".
_CALLS = frozenset(
    {
        "acquire",
        "ack",
        "browse",
        "cancel",
        "checkpoint",
        "enqueue",
        "extend",
        "get",
        "purge",
        "release",
        "stats",
    }
)

#: A task with one of these outcomes was run by the worker that buried it; with the others it never started there.
_RAN = frozenset({"failed", "timed_out", "rejected"})


class _Sums:
    """The series of one family. Safe from any thread."""

    __slots__ = ("_known", "_lock", "_series", "family")

    def __init__(self, family: Family, known: Callable[[str], bool]) -> None:
        self.family = family
        self._known = known
        self._series: dict[Key, Cells] = {}
        self._lock = threading.Lock()

    def count(self, key: Key) -> None:
        """One more."""
        cells = self._series.get(key) or self._add(key)
        with self._lock:
            cells[0] += 1

    def observe(self, key: Key, seconds: float) -> None:
        """One more, that took `seconds`."""
        cells = self._series.get(key) or self._add(key)
        bucket = bisect_left(BUCKETS, seconds)
        with self._lock:
            cells[bucket] += 1
            cells[-1] += seconds

    def copy(self) -> dict[Key, Cells]:
        """All series as they are now."""
        with self._lock:
            return {key: cells.copy() for key, cells in self._series.items()}

    def _add(self, key: Key) -> Cells:
        if "job_name" in self.family.labels:
            at = self.family.labels.index("job_name")
            if not self._known(key[at]):  # not under the lock: it may import the app's modules
                key = (*key[:at], UNKNOWN, *key[at + 1 :])
        with self._lock:
            return self._series.setdefault(key, [0.0] * self.family.cells)


class Tally:
    """A listener. Safe from any thread."""

    def __init__(self, known: Callable[[str], bool]) -> None:
        """`known` says whether a job of this name is registered."""
        self._executions = _Sums(EXECUTIONS, known)
        self._steps = _Sums(STEPS, known)
        self._waits = _Sums(WAITS, known)
        self._retries = _Sums(RETRIES, known)
        self._crashes = _Sums(CRASHES, known)
        self._lost = _Sums(LOST_LEASES, known)
        self._fatal = _Sums(FATAL, known)
        self._released = _Sums(RELEASED, known)
        self._checkpoints = _Sums(CHECKPOINTS, known)
        self._failures = _Sums(BROKER_FAILURES, known)
        self._sizes: dict[str, Size] = {}
        self._on: dict[type[Event], Callable[[Any], None]] = {
            TaskStarted: self._started,
            StepDone: self._step,
            StepRetried: self._retried,
            Checkpointed: self._checkpointed,
            TaskSucceeded: self._succeeded,
            TaskBuried: self._buried,
            TaskReleased: self._given_back,
            TaskCrashed: self._crashed,
            LeaseLost: self._lease_lost,
            BrokerDown: self._failed,
            QueueMeasured: self._measured,
        }

    def __call__(self, event: Event) -> None:
        """Count one event."""
        on = self._on.get(type(event))
        if on is not None:
            on(event)

    def totals(self) -> Totals:
        """What has come together. Each series is consistent in itself; two may be an event apart."""
        every = (
            self._executions,
            self._steps,
            self._waits,
            self._retries,
            self._crashes,
            self._lost,
            self._fatal,
            self._released,
            self._checkpoints,
            self._failures,
        )
        return Totals(sums={sums.family.name: sums.copy() for sums in every}, sizes=self._sizes.copy())

    def _started(self, event: TaskStarted) -> None:
        waited = codec.age(event.ready_at) if event.ready_at is not None else None
        if waited is not None:
            self._waits.observe((event.queue,), waited)

    def _step(self, event: StepDone) -> None:
        outcome = "success" if event.ok else "failed"
        self._steps.observe((event.queue, event.job, event.step, outcome), event.seconds)

    def _retried(self, event: StepRetried) -> None:
        self._retries.count((event.queue, event.job, event.step))

    def _checkpointed(self, event: Checkpointed) -> None:
        self._checkpoints.count((event.queue, event.job))

    def _succeeded(self, event: TaskSucceeded) -> None:
        self._executions.observe((event.queue, event.job, "success"), event.seconds)

    def _buried(self, event: TaskBuried) -> None:
        self._fatal.count((event.queue, event.job, event.outcome))
        if event.outcome in _RAN:
            self._executions.observe((event.queue, event.job, "failed"), event.seconds)

    def _given_back(self, event: TaskReleased) -> None:
        self._released.count((event.queue, event.why))

    def _crashed(self, event: TaskCrashed) -> None:
        self._crashes.count((event.queue, event.job))

    def _lease_lost(self, event: LeaseLost) -> None:
        self._lost.count((event.queue, "true" if event.sure else "false"))

    def _failed(self, event: BrokerDown) -> None:
        call = event.what.partition(" ")[0]
        self._failures.count((call if call in _CALLS else "other",))

    def _measured(self, event: QueueMeasured) -> None:
        self._sizes[event.queue] = Size(time.time(), event.ready, event.scheduled, event.leased)
