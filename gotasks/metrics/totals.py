"""Totals: what has been counted and measured up to one moment, as plain data that can be stored and added up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

#: Upper bounds of all histograms, in seconds: from a handler that does nothing to one that takes half an hour.
BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)

#: The value of each label, in the order of the family's labels.
Key = tuple[str, ...]

#: A counter: [count]. A histogram: one count for each of BUCKETS, one for what is above, the sum. None cumulative.
Cells = list[float]


class Family(NamedTuple):
    """A counter or a histogram: one number, or one distribution of seconds, for each combination of labels."""

    name: str
    help: str
    labels: tuple[str, ...]
    timed: bool = False  #: a histogram

    @property
    def cells(self) -> int:
        """How many numbers a series has."""
        return len(BUCKETS) + 2 if self.timed else 1


_QUEUE = ("queue_name",)
_JOB = ("queue_name", "job_name")

EXECUTIONS = Family(
    "task_execution_stats",
    "Seconds from taking a task up to its end, done (success) or in the fatal queue (failed). A task that was "
    "buried without being run isn't in it: see gotasks_fatal_total.",
    (*_JOB, "status"),
    timed=True,
)
STEPS = Family(
    "gotasks_step_duration_seconds",
    "Seconds that a handler ran, each try by itself; outcome is success or failed.",
    (*_JOB, "step", "outcome"),
    timed=True,
)
WAITS = Family(
    "gotasks_ready_to_start_seconds",
    "Seconds from the moment a new task was ready to its start, by the clocks of two machines.",
    _QUEUE,
    timed=True,
)
RETRIES = Family("gotasks_retries_total", "Handlers that raised and are tried again.", (*_JOB, "step"))
CRASHES = Family("gotasks_crashes_total", "Tasks that came back because their worker went away.", _JOB)
LOST_LEASES = Family(
    "gotasks_lost_leases_total",
    "Runs whose result was discarded, since the task was no longer this worker's; sure is false where a repeated "
    "write may have taken effect itself.",
    (*_QUEUE, "sure"),
)
FATAL = Family("gotasks_fatal_total", "Tasks that went to the fatal queue, and why.", (*_JOB, "outcome"))
RELEASED = Family("gotasks_released_total", "Tasks that were given back, and why.", (*_QUEUE, "why"))
CHECKPOINTS = Family("gotasks_checkpoints_total", "Results between two steps that were made durable.", _JOB)
BROKER_FAILURES = Family(
    "gotasks_broker_failures_total", "Calls to the broker that failed, by operation.", ("what",)
)

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        EXECUTIONS,
        STEPS,
        WAITS,
        RETRIES,
        CRASHES,
        LOST_LEASES,
        FATAL,
        RELEASED,
        CHECKPOINTS,
        BROKER_FAILURES,
    )
}


class Size(msgspec.Struct, frozen=True):
    """How much a queue held when it was measured; None where the server can't say."""

    at: float  #: seconds since the epoch
    ready: int | None
    scheduled: int | None
    leased: int | None


class Totals(msgspec.Struct):
    """Sums only grow while a process lives. The rest are gauges: true of this moment."""

    sums: dict[str, dict[Key, Cells]] = {}  #: by the family's name
    sizes: dict[str, Size] = {}  #: by queue
    in_flight: dict[str, int] = {}  #: tasks that workers hold, by queue
    stalled: int = 0  #: event loops that make no progress

    def add_sums(self, sums: Mapping[str, Mapping[Key, Cells]]) -> None:
        """Add the sums of another process to these."""
        for name, series in sums.items():
            mine = self.sums.setdefault(name, {})
            for key, cells in series.items():
                had = mine.get(key)
                mine[key] = list(cells) if had is None else [a + b for a, b in zip(had, cells, strict=True)]

    def add_gauges(self, other: Totals) -> None:
        """Add the gauges of another living process. All measure the same queues, so the newest size counts."""
        for queue, size in other.sizes.items():
            if queue not in self.sizes or self.sizes[queue].at < size.at:
                self.sizes[queue] = size
        for queue, count in other.in_flight.items():
            self.in_flight[queue] = self.in_flight.get(queue, 0) + count
        self.stalled += other.stalled


class _Stored(msgspec.Struct):
    """Totals as JSON, which has no keys of several strings."""

    run: str
    sums: dict[str, list[tuple[Key, Cells]]]
    sizes: dict[str, Size]
    in_flight: dict[str, int]
    stalled: int


_decoder = msgspec.json.Decoder(_Stored)


def encode(run: str, totals: Totals) -> bytes:
    """JSON. `run` names what the sums began with: under another one they begin at 0 again."""
    sums = {name: list(series.items()) for name, series in totals.sums.items()}
    return msgspec.json.encode(_Stored(run, sums, totals.sizes, totals.in_flight, totals.stalled))


def decode(data: bytes) -> tuple[str, Totals]:
    """What `encode` was given. Families that aren't known are left out. Raises ValueError if it isn't that."""
    stored = _decoder.decode(data)
    sums = {name: _series(FAMILIES[name], pairs) for name, pairs in stored.sums.items() if name in FAMILIES}
    return stored.run, Totals(sums, stored.sizes, stored.in_flight, stored.stalled)


def _series(family: Family, pairs: Iterable[tuple[Key, Cells]]) -> dict[Key, Cells]:
    series = dict(pairs)
    for key, cells in series.items():
        if len(key) != len(family.labels) or len(cells) != family.cells:
            raise ValueError(f"{family.name} has {len(family.labels)} labels and {family.cells} cells")
    return series
