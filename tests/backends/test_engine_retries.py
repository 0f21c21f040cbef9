"""The engine: reentrant handlers are retried, as often and as late as they say; all others never are."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

import pytest

from gotasks import AckWhen, ArgsMap, Status, context, reentrant
from gotasks.broker import Capability
from gotasks.events import StepRetried, TaskBuried, TaskReleased, TaskStarted, TaskSucceeded
from gotasks.task import Outcome
from tests.backends.contract import eventually
from tests.backends.engine import QUEUE, Engine


class Calls:
    """A handler that fails a number of times, and remembers when it was called and with what."""

    def __init__(self, failures: float = float("inf"), error: Callable[[], BaseException] = OSError) -> None:
        self.at: list[float] = []
        self.args: list[ArgsMap] = []
        self._failures = failures
        self._error = error

    def handler(self, args: ArgsMap) -> ArgsMap:
        self.at.append(time.monotonic())
        self.args.append({**args})
        if len(self.at) <= self._failures:
            raise self._error()
        return {**args, "calls": len(self.at)}

    @property
    def pauses(self) -> list[float]:
        return [later - earlier for earlier, later in itertools.pairwise(self.at)]


def test_max_times_3_is_up_to_4_calls(engine: Engine) -> None:
    """The Go library took it as the number of all calls."""
    calls = Calls()
    task = engine.enqueue(reentrant(calls.handler, max_times=3, sleepy_ms=1))
    engine.run()
    assert len(calls.at) == 4
    assert [fact.tries for fact in engine.watch.all(StepRetried, task)] == [1, 2, 3]
    assert engine.failure(task).outcome is Outcome.FAILED


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_the_first_success_ends_the_tries(engine: Engine, failures: int) -> None:
    calls = Calls(failures)
    task = engine.enqueue(reentrant(calls.handler, max_times=3, sleepy_ms=1), engine.keep)
    engine.run()
    assert engine.result(task) == {"calls": failures + 1}


def test_reentrant_without_options_calls_its_handler(engine: Engine) -> None:
    """In the Go library MaxTimes was 0 then: the handler was never called, and the chain went on."""
    calls = Calls(0)
    task = engine.enqueue(reentrant(calls.handler), engine.keep)
    engine.run()
    assert engine.result(task) == {"calls": 1}


def test_max_times_0_is_one_call(engine: Engine) -> None:
    calls = Calls()
    engine.enqueue(reentrant(calls.handler, max_times=0))
    engine.run()
    assert len(calls.at) == 1


def test_a_handler_that_isnt_reentrant_is_never_retried(engine: Engine) -> None:
    calls = Calls()
    task = engine.enqueue(calls.handler)
    engine.run()
    assert len(calls.at) == 1
    assert engine.failure(task).in_doubt is False  # it raised, so what it did is known to its author


def test_every_try_gets_fresh_args(engine: Engine) -> None:
    """In the Go library a failed try's result, often nil, was the next try's input; changes in place stayed."""
    seen: list[str] = []

    def spoil(args: ArgsMap) -> ArgsMap:
        seen.append(repr(args))
        args["list"].append("spoilt")
        args["nested"]["deep"] = "spoilt"
        args["new"] = 1
        if len(seen) < 4:
            raise OSError("again")
        return {}

    def plain_spoil(args: ArgsMap) -> None:
        args["spoilt"] = True
        raise OSError("no")

    args = {"list": [1], "nested": {"deep": 1}}
    good = engine.enqueue(reentrant(spoil, sleepy_ms=1), engine.keep, args=args)
    bad = engine.enqueue(plain_spoil, args=args)
    engine.run()
    assert seen == [repr(args)] * 4
    assert engine.result(good) == {}
    record = engine.buried(bad).task
    assert record is not None
    assert bytes(record.args_map) == b'{"list":[1],"nested":{"deep":1}}'


def test_sleepy_ms_are_milliseconds_and_arent_slept_after_the_last_try(engine: Engine) -> None:
    """The Go library slept microseconds, also after the last try."""
    calls = Calls()
    task = engine.enqueue(reentrant(calls.handler, max_times=2, sleepy_ms=150))
    engine.run()
    assert all(0.15 <= pause < 0.6 for pause in calls.pauses), calls.pauses
    (buried,) = engine.watch.all(TaskBuried, task)
    assert 0.3 <= buried.seconds < 0.44  # two sleeps; three were 0.45


def test_backoff_makes_each_sleep_longer(local: Engine) -> None:
    calls = Calls()
    task = local.enqueue(reentrant(calls.handler, max_times=3, sleepy_ms=20, backoff=3))
    local.run()
    assert [fact.delay for fact in local.watch.all(StepRetried, task)] == pytest.approx([0.02, 0.06, 0.18])
    for pause, least in zip(calls.pauses, [0.02, 0.06, 0.18], strict=True):
        assert pause >= least


def test_jitter_changes_a_sleep_by_up_to_its_part_of_it(local: Engine) -> None:
    calls = Calls()
    task = local.enqueue(reentrant(calls.handler, max_times=30, sleepy_ms=10, jitter=0.5))
    local.run()
    delays = [fact.delay for fact in local.watch.all(StepRetried, task)]
    assert all(0.005 <= delay <= 0.015 for delay in delays), delays
    assert len(set(delays)) > 20
    assert min(delays) < 0.009
    assert max(delays) > 0.011


@pytest.mark.parametrize(
    "error, expected", [(ConnectionError, 4), (TimeoutError, 4), (KeyError, 1), (SystemExit, 1)]
)
def test_on_names_the_exceptions_that_are_retried(
    engine: Engine, error: type[BaseException], expected: int
) -> None:
    calls = Calls(error=error)
    task = engine.enqueue(reentrant(calls.handler, sleepy_ms=1, on=(ConnectionError, TimeoutError)))
    engine.run()
    assert len(calls.at) == expected
    assert error.__name__ in engine.failure(task).error


def test_a_step_that_ran_before_isnt_run_again_for_a_later_ones_retry(engine: Engine) -> None:
    before, failing = Calls(0), Calls(2)

    def first(args: ArgsMap) -> ArgsMap:
        return before.handler(args)

    engine.enqueue(first, reentrant(failing.handler, sleepy_ms=1), engine.keep)
    engine.run()
    assert (len(before.at), len(failing.at)) == (1, 3)


def test_each_step_of_a_chain_has_tries_of_its_own(engine: Engine) -> None:
    one, two = Calls(2), Calls(2)

    def first(args: ArgsMap) -> ArgsMap:
        return one.handler(args)

    task = engine.enqueue(
        reentrant(first, max_times=2, sleepy_ms=1),
        reentrant(two.handler, max_times=2, sleepy_ms=1),
        engine.keep,
    )
    engine.run()
    assert engine.result(task) == {"calls": 3}


def test_a_result_that_cant_be_stored_isnt_retried_since_the_handler_has_done_its_work(
    engine: Engine,
) -> None:
    calls = []

    def bad_result(args: ArgsMap) -> ArgsMap:
        calls.append(1)
        return {"set": object()}

    careful = engine.enqueue(reentrant(bad_result, sleepy_ms=1))
    plain = engine.enqueue(bad_result)
    engine.run()
    assert len(calls) == 2
    assert "object" in engine.failure(careful).error
    assert (engine.failure(careful).in_doubt, engine.failure(plain).in_doubt) == (False, True)


@pytest.mark.needs("DELAY")
def test_a_longer_sleep_gives_the_slot_to_others_where_the_broker_has_delay(worked: Engine) -> None:
    assert Capability.DELAY in worked.app.capabilities
    calls = Calls(1)
    order: list[str] = []

    def other(args: ArgsMap) -> None:
        order.append("other")

    def slow(args: ArgsMap) -> ArgsMap:
        order.append("slow")
        return calls.handler(args)

    task = worked.enqueue(reentrant(slow, sleepy_ms=1200), worked.keep, max_limit=1)
    worked.enqueue(other)
    with worked.app.worker():
        (released,) = worked.watch.wait(TaskReleased, task)
        assert released.why == "retry"
        assert released.delay == pytest.approx(1.2)
        assert task.status() is Status.SCHEDULED
        worked.watch.wait(TaskSucceeded, task)
    assert order == ["slow", "other", "slow"]
    assert calls.pauses[0] >= 1.15
    assert worked.result(task) == {"calls": 2}


def test_a_delayed_retry_doesnt_begin_to_count_anew(local: Engine) -> None:
    seen: list[int] = []

    def fail(args: ArgsMap) -> None:
        seen.append(context.current().tries)
        raise OSError("no")

    task = local.enqueue(reentrant(fail, max_times=1, sleepy_ms=1010))
    local.run()
    assert seen == [0, 1]
    assert local.failure(task).outcome is Outcome.FAILED
    assert len(local.watch.all(TaskStarted, task)) == 2


def test_a_longer_sleep_stays_in_the_slot_where_the_broker_has_no_delay() -> None:
    engine = Engine("memory://?without=DELAY")
    calls = Calls(1)
    task = engine.enqueue(reentrant(calls.handler, sleepy_ms=1100), engine.keep, lease=0.5)
    engine.run()
    assert engine.result(task) == {"calls": 2}  # and the lease of 0.5 s was renewed meanwhile
    assert len(engine.watch.all(TaskStarted, task)) == 1
    assert calls.pauses[0] >= 1.1
    engine.close()


@pytest.mark.needs("RECORDS")
def test_a_sleep_before_a_retry_ends_at_a_stop_and_the_tries_go_with_the_task(worked: Engine) -> None:
    calls = Calls(1)
    task = worked.enqueue(reentrant(calls.handler, max_times=1, sleepy_ms=900), worked.keep)
    with worked.app.worker():
        worked.watch.wait(StepRetried, task)
    # Twice where the stopping fetcher was still waiting for a task, and got this one.
    assert {released.why for released in worked.watch.all(TaskReleased, task)} == {"stop"}
    assert task.status() is Status.READY
    assert task.task().tries == 1
    worked.run()
    assert worked.result(task) == {"calls": 2}


def test_ack_when_acquired_retries_too(worked: Engine) -> None:
    calls = Calls(2)
    task = worked.enqueue(reentrant(calls.handler, sleepy_ms=1), worked.keep, ack_when=AckWhen.ACQUIRED)
    done = threading.Event()
    with worked.app.worker():
        eventually(lambda: task.id in worked.kept, what="the end of the chain")
        done.set()
    assert worked.kept[task.id] == {"calls": 3}
    assert worked.app.stats(QUEUE).leased in (0, None)
