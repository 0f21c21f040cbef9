"""Faulty: retries that come too often or too seldom, too early or too late, or by the options of another job."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from gotasks import calling, codec, runner
from gotasks.broker import Write
from gotasks.conformance.faulty import Faulty, engine_fault, faulty, trip
from gotasks.job import Job, Retry, Step
from gotasks.runner import Runner
from gotasks.settler import Settler


@contextmanager
def _tries(allowed: Callable[[int], int]) -> Iterator[None]:
    """As if each reentrant handler had been registered with `allowed(max_times)`."""
    real = Runner._retry  # noqa: SLF001 - a fault of its inside

    def retry(self: Runner, run: Any, step: Step, error: BaseException) -> bool:
        assert step.retry is not None
        told = Retry(allowed(step.retry.max_times), step.retry.sleepy_ms)
        trip()
        with patch.object(step, "retry", told):
            return real(self, run, step, error)

    with patch.object(Runner, "_retry", retry):
        yield


@engine_fault("FTL-07", name="RetryOffByOne")
def _retry_off_by_one() -> AbstractContextManager[None]:
    """Takes `max_times` for the number of all calls, the first one included."""
    return _tries(lambda times: max(times - 1, 0))


@engine_fault("FTL-07", name="RetryOnceMore")
def _retry_once_more() -> AbstractContextManager[None]:
    """Tries a handler once more than it says."""
    return _tries(lambda times: times + 1)


@engine_fault("FTL-07", name="ZeroTimesIsNever")
@contextmanager
def _zero_times_is_never() -> Iterator[None]:
    """A handler with `max_times=0` isn't called at all, and the chain goes on as if it had been."""

    def call_step(step: Step, args: Any, loop: Any, run: Any = None) -> Any:
        if step.retry is not None and step.retry.max_times == 0:
            trip()
            return codec.encode_args(args)
        return calling.call_step(step, args, loop, run)

    with patch.object(runner, "call_step", call_step):
        yield


@contextmanager
def _sleeps(factor: float) -> Iterator[None]:
    real = Retry.sleep

    def sleep(self: Retry, tries: int) -> float:
        trip()
        return real(self, tries) * factor

    with patch.object(Retry, "sleep", sleep):
        yield


@engine_fault("FTL-07", name="SleepsMicroseconds")
def _sleeps_microseconds() -> AbstractContextManager[None]:
    """Takes `sleepy_ms` for microseconds."""
    return _sleeps(0.001)


@engine_fault("FTL-07", name="SleepsTooLong")
def _sleeps_too_long() -> AbstractContextManager[None]:
    """Sleeps several times as long as `sleepy_ms` says."""
    return _sleeps(4)


@engine_fault("FTL-07", name="SleepAfterLast")
@contextmanager
def _sleep_after_last() -> Iterator[None]:
    """Sleeps once more after the last try."""
    real = Settler.bury

    def bury(self: Settler, run: Any, *args: Any, step: Any = None, **options: Any) -> None:
        if step is not None and step.retry is not None:
            trip()
            time.sleep(step.retry.sleep(1))
        real(self, run, *args, step=step, **options)

    with patch.object(Settler, "bury", bury):
        yield


@engine_fault("CHN-07", name="SlotHeldInSleep")
@contextmanager
def _slot_held_in_sleep() -> Iterator[None]:
    """A long sleep before a retry keeps its slot."""
    trip()
    with patch.object(runner, "LONGEST_SLEEP_IN_SLOT", math.inf):
        yield


@engine_fault("CHN-07", name="DelayedRetryCountsAnew")
@contextmanager
def _delayed_retry_counts_anew() -> Iterator[None]:
    """A task that is put back for a later retry forgets once how often it was tried."""
    real = Settler.give_back
    forgotten: list[str] = []

    def give_back(self: Settler, run: Any, why: str, delay: float = 0.0) -> None:
        if delay and not forgotten:
            trip()
            forgotten.append(run.id)
            run.task = msgspec.structs.replace(run.known, tries=0)
        real(self, run, why, delay)

    with patch.object(Settler, "give_back", give_back):
        yield


@faulty("CHN-07")
class RetryDelayLost(Faulty):
    """Puts a task back at the end of its queue at once, whatever delay it was given."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        for write in writes:
            if write.delay:
                self.trip()
        return super().release([msgspec.structs.replace(write, delay=write.delay / 10) for write in writes])


@engine_fault("CHN-08", name="RetryByName")
@contextmanager
def _retry_by_name() -> Iterator[None]:
    """The options of a step are kept by its name, so the last job to name it decides for all."""
    real = Job.__init__
    known: dict[str, Step] = {}

    def init(self: Job, name: str, handlers: Any, call: Any) -> None:
        real(self, name, handlers, call)
        for step in self.steps:
            if step.name in known:
                trip()
                known[step.name].retry = step.retry
            known[step.name] = step

    with patch.object(Job, "__init__", init):
        yield
