"""Figures: what a run has measured, and how the time of a task is divided."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from gotasks.bench.counting import Count, Counts

#: Version of the form in which a report is printed.
SCHEMA = 1

#: What moves tasks: the calls that carry several at a time.
_CARRIERS = ("acquire", "checkpoint", "ack", "release")


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long something takes: half of all times, and 99 %, are shorter than that."""

    p50_ms: float
    p99_ms: float
    samples: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Of two times at least."""
        cuts = statistics.quantiles(seconds, n=100, method="inclusive")
        return cls(p50_ms=cuts[49] * 1000, p99_ms=cuts[98] * 1000, samples=len(seconds))


class Enqueue(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks a second that one thread stores."""

    one_by_one: float
    bulk: float
    batch: int  #: tasks in one call of the latter


class Drain(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker does with a backlog, and by which calls."""

    tasks_per_second: float
    tasks: int  #: that were counted
    calls_per_task: float
    tasks_per_call: float  #: of those that carry tasks
    in_calls: float  #: the part of the time, up to 1, in which one call at least was under way
    methods: dict[str, Count]

    @classmethod
    def of(cls, counts: Counts, tasks: int) -> Drain:
        """From what was counted while so many tasks were started; one at least."""
        carriers = [each for name, each in counts.methods.items() if name in _CARRIERS]
        calls = sum(each.calls for each in carriers)
        return cls(
            tasks_per_second=tasks / counts.seconds,
            tasks=tasks,
            calls_per_task=sum(each.calls for each in counts.methods.values()) / tasks,
            tasks_per_call=sum(each.items for each in carriers) / max(calls, 1),
            in_calls=counts.busy / counts.seconds,
            methods=counts.methods,
        )


class Time(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of a task goes: a second divided by the tasks that are drained in it. Microseconds."""

    task_us: float
    process_us: (
        float  #: this process was at work: handlers, gotasks, the driver; the broker too where it's embedded
    )
    process_in_calls_us: float  #: of that, the threads that called the broker, while they did
    broker_us: float  #: it wasn't, and a call was under way: server and network
    waiting_us: (
        float  #: the rest: neither of them; threads that are about to go on, and other processes' turns
    )

    @classmethod
    def of(cls, counts: Counts, tasks: int) -> Time:
        """From what was counted while so many tasks were started; one at least."""
        in_calls = sum(each.cpu for each in counts.methods.values())
        idle = max(0.0, counts.seconds - counts.cpu)
        broker = min(idle, max(0.0, counts.busy - in_calls))
        each = 1e6 / tasks
        return cls(
            task_us=counts.seconds * each,
            process_us=counts.cpu * each,
            process_in_calls_us=in_calls * each,
            broker_us=broker * each,
            waiting_us=(idle - broker) * each,
        )


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run has measured."""

    ping: Latency  #: of the broker's cheapest call, `stats`
    enqueue: Enqueue
    drain: Drain
    chain_steps_per_second: float
    latency: Latency  #: from the call of `enqueue` to the handler's start, of an idle worker
    time: Time  #: of the drain


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `gotasks bench --json` prints."""

    schema: int = SCHEMA
    gotasks: str
    python: str
    url: str  #: without secrets
    seconds: float  #: that each thing was measured
    slots: int
    payload: int
    figures: Figures
    advice: list[str]
    warnings: list[str]  #: what broker and worker have to say
