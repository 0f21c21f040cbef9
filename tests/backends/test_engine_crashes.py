"""The engine: a worker went away, was cut off, or lost its lease; what becomes of its tasks (guarantees G3 to G7)."""

from __future__ import annotations

import asyncio
import threading

import pytest

from gotasks import ArgsMap, Status, context, reentrant
from gotasks.broker import Capability, Envelope, Write
from gotasks.errors import BrokerUnavailable, InDoubt
from gotasks.events import (
    LeaseLost,
    StepDone,
    TaskBuried,
    TaskCrashed,
    TaskReleased,
    TaskStarted,
    TaskSucceeded,
)
from gotasks.task import Outcome
from tests.backends.contract import eventually, let_end, stats
from tests.backends.engine import QUEUE, Engine, Faulty, Steps, times

#: Each way of running once: what a crash leaves behind is the same on the others, and leases take their time.
some_engines = pytest.mark.parametrize("engine", ["memory", "redis", "handoff"], indirect=True)


# -- in doubt -----------------------------------------------------------------------------------


def test_a_step_that_isnt_reentrant_isnt_started_again_after_a_crash_but_lies_in_doubt(
    engine: Engine,
) -> None:
    steps = Steps()
    task = engine.enqueue(steps.one, engine.keep)
    let_end(engine.crash())
    engine.run()

    assert steps.calls == []
    failure = engine.failure(task)
    assert (failure.outcome, failure.in_doubt, failure.step) == (Outcome.IN_DOUBT, True, "Steps.one")
    assert [fact.deaths for fact in engine.watch.all(TaskCrashed, task)] == [1]
    assert engine.watch.all(TaskStarted, task) == []


@some_engines
def test_a_task_in_doubt_is_resumed_by_force_or_at_a_later_step(engine: Engine) -> None:
    steps = Steps()
    forced, skipped = (
        engine.enqueue(steps.one, engine.keep),
        engine.enqueue(reentrant(steps.two), engine.keep),
    )
    let_end(engine.crash() + engine.crash())
    engine.run()
    assert engine.kept[skipped.id] == {"two": True}  # that one is reentrant: no doubt
    with pytest.raises(InDoubt, match=r"step 'Steps\.one'"):
        engine.app.fatal.retry(forced.id)
    with pytest.raises(InDoubt):
        engine.app.fatal.retry(forced.id, from_step="Steps.one")
    with pytest.raises(InDoubt):
        engine.app.fatal.retry(forced.id, changes={"a": 1})
    assert engine.app.stats("fatal") == stats(ready=1)

    engine.app.fatal.retry(forced.id, force=True)
    engine.run()
    assert steps.calls == ["two", "one"]
    assert engine.result(forced) == {"one": True}


@some_engines
def test_a_task_in_doubt_may_go_on_after_the_step_in_doubt_without_force(engine: Engine) -> None:
    steps = Steps()
    task = engine.enqueue(steps.one, engine.keep, args={"order": 42})
    let_end(engine.crash())
    engine.run()
    engine.app.fatal.retry(task.id, from_step="Engine.keep", changes={"one": "by hand"})
    engine.run()
    assert steps.calls == []
    assert engine.result(task) == {"order": 42, "one": "by hand"}


@pytest.mark.needs("RECORDS")
def test_doubt_is_about_the_step_after_the_last_checkpoint(worked: Engine) -> None:
    """A crash in the third step: the first two are never run again, and it's the third that is in doubt."""
    steps = Steps()
    reached = threading.Event()
    go_on = threading.Event()

    def three(args: ArgsMap) -> None:
        reached.set()
        go_on.wait(20)

    task = worked.enqueue(steps.one, reentrant(steps.two), three, lease=worked.short)
    worker = worked.app.worker(grace=0.05)
    worker.start()
    assert reached.wait(20)
    assert task.status() is Status.RUNNING
    assert worker.stop() is False  # the handler doesn't end in time: a crash
    worked.run()
    go_on.set()

    assert steps.calls == ["one", "two"]
    found = worked.buried(task)
    assert found.failure.outcome is Outcome.IN_DOUBT
    assert found.failure.step.endswith("three")
    assert found.task is not None
    assert found.task.current_handler_index == 2
    assert bytes(found.task.args_map) == b'{"one":true,"two":true}'


# -- reentrant ----------------------------------------------------------------------------------


@some_engines
def test_a_reentrant_step_is_run_again_after_a_crash(engine: Engine) -> None:
    steps = Steps()
    task = engine.enqueue(reentrant(steps.one), steps.two, engine.keep)
    engine.crash()
    engine.run()
    assert steps.calls == ["one", "two"]
    assert engine.result(task) == {"one": True, "two": True}


@some_engines
def test_a_reentrant_step_in_which_workers_die_goes_to_fatal(engine: Engine) -> None:
    """The poison breaker: a task that kills its workers must not do so for ever."""
    steps = Steps()
    task = engine.enqueue(reentrant(steps.one), engine.keep)
    engine.crash(times=3)
    engine.run()
    assert steps.calls == []
    failure = engine.failure(task)
    assert (failure.outcome, failure.in_doubt, failure.step) == (Outcome.CRASHED, False, "Steps.one")

    engine.app.fatal.retry(task.id)  # without force; and with a count that begins anew
    engine.run()
    assert engine.result(task) == {"one": True}


def test_max_crashes_can_be_set(local: Engine) -> None:
    steps = Steps()
    task = local.enqueue(reentrant(steps.one), max_crashes=1)
    local.crash()
    local.run()
    assert local.failure(task).outcome is Outcome.CRASHED


@some_engines
def test_a_checkpoint_starts_the_count_of_crashes_anew(engine: Engine) -> None:
    steps = Steps()
    task = engine.enqueue(reentrant(steps.one), reentrant(steps.two), engine.keep)
    (first,) = engine.crash(times=1)
    lease = engine.crash(times=1)[0]
    assert (first.deaths, lease.deaths) == (0, 1)
    body = lease.envelope.body.replace(b'"current_handler_index":0', b'"current_handler_index":1')
    if Capability.HANDOFF in engine.app.capabilities:
        assert engine.broker.release([Write(lease=lease, body=body, seq=1)]) == frozenset()
    else:
        assert engine.broker.checkpoint([Write(lease=lease, body=body, seq=1)]) == frozenset()
    engine.crash(times=2 if Capability.HANDOFF in engine.app.capabilities else 1)
    engine.run()
    assert steps.calls == ["two"]
    assert engine.result(task) == {"two": True}


@pytest.mark.needs("TIMED_LEASE")
def test_a_crash_while_unreadable_or_unknown_doesnt_loop(engine: Engine) -> None:
    engine.app.external("unknown")
    engine.app.register("some", engine.keep)
    task = engine.app.queue(QUEUE).enqueue("unknown")
    engine.broker.enqueue([Envelope(id="bad", queue=QUEUE, body=b"bad")])
    let_end(engine.crash() + engine.crash())
    engine.run()
    assert engine.failure(task).outcome is Outcome.UNKNOWN_JOB
    assert engine.failure(task).in_doubt is True  # another worker may have known it, and begun
    assert engine.app.fatal.show("bad").failure.in_doubt is True
    with pytest.raises(InDoubt):
        engine.app.fatal.retry("bad")


# -- leases -------------------------------------------------------------------------------------


@pytest.mark.needs("IN_PLACE")
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_handler_that_takes_longer_than_three_leases_keeps_its_task(worked: Engine, kind: str) -> None:
    seconds = worked.short * 3.5

    def work(args: ArgsMap) -> None:
        threading.Event().wait(seconds)

    async def work_async(args: ArgsMap) -> None:
        await asyncio.sleep(seconds)

    task = worked.enqueue(work if kind == "plain" else work_async, worked.keep, lease=worked.short)
    worked.run()
    assert worked.result(task) == {}
    assert worked.watch.all(TaskCrashed) == []
    assert worked.watch.all(LeaseLost) == []
    assert len(worked.watch.all(TaskStarted, task)) == 1


class CutOff:
    """A worker that can't extend its leases while it runs a handler, so that another client takes its task over."""

    def __init__(self, url: str) -> None:
        self.broker = Faulty(url)
        self.engine = Engine(self.broker)
        self.engine.short = 0.5
        self.broker.before["extend"] = self._cut
        self.cut = False
        self.inside = threading.Event()

    def _cut(self) -> None:
        if self.cut:
            raise BrokerUnavailable("cut off")

    def take_over(self) -> None:
        """Once the worker's handler runs, take its task, as another worker does; then let it hear of that."""
        assert self.inside.wait(20)
        self.cut = True
        (self.lease,) = self.engine.broker.acquire(QUEUE, limit=1, wait=20, lease_for=60)
        assert self.lease.deaths == 1
        self.cut = False


@pytest.fixture
def cut_off(broker_url: str) -> CutOff:
    return CutOff(broker_url)


@pytest.mark.needs("TIMED_LEASE")
def test_the_async_handler_of_a_task_that_was_taken_over_is_cancelled(cut_off: CutOff) -> None:
    engine = cut_off.engine
    cancelled = threading.Event()

    async def work(args: ArgsMap) -> None:
        cut_off.inside.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    task = engine.enqueue(reentrant(work), engine.keep, lease=engine.short, max_limit=1)
    with engine.app.worker():
        cut_off.take_over()
        assert cancelled.wait(20)
        assert [fact.sure for fact in engine.watch.wait(LeaseLost, task)] == [True]
    assert engine.kept == {}
    assert (engine.watch.all(TaskBuried), engine.watch.all(TaskSucceeded)) == ([], [])
    assert engine.app.stats(QUEUE) == stats(leased=1)  # it is the other's
    engine.close()


@pytest.mark.needs("TIMED_LEASE")
def test_a_plain_handler_learns_that_its_task_was_taken_over_and_its_result_is_discarded(
    cut_off: CutOff,
) -> None:
    engine = cut_off.engine
    learnt: list[float] = []

    def work(args: ArgsMap) -> ArgsMap:
        now = context.current()
        assert not now.revoked
        cut_off.inside.set()
        learnt.append(eventually(lambda: now.revoked, within=20, what="revoked"))
        return {"result": "discarded"}

    task = engine.enqueue(work, engine.keep, args={"order": 42}, lease=engine.short, max_limit=1)
    with engine.app.worker():
        cut_off.take_over()
        engine.watch.wait(StepDone, task)
        assert engine.watch.all(LeaseLost, task)
    assert learnt
    assert engine.kept == {}  # no step follows
    record = engine.broker.get([task.id])[task.id]
    assert b'"result"' not in record.body
    assert record.body == cut_off.lease.envelope.body
    assert engine.watch.all(TaskSucceeded) == []
    engine.close()


@pytest.mark.needs("TIMED_LEASE")
def test_a_result_that_comes_before_its_worker_has_learnt_of_the_takeover_is_refused_by_the_broker(
    cut_off: CutOff,
) -> None:
    """The fence is in the broker: what the worker believes doesn't matter."""
    engine = cut_off.engine
    go_on = threading.Event()

    def work(args: ArgsMap) -> ArgsMap:
        cut_off.inside.set()
        go_on.wait(20)
        return {"result": "late"}

    chain = engine.enqueue(work, engine.keep, lease=engine.short, max_limit=1)
    with engine.app.worker():
        assert cut_off.inside.wait(20)
        cut_off.cut = True
        (lease,) = engine.broker.acquire(QUEUE, limit=1, wait=20, lease_for=60)
        go_on.set()
        assert [fact.sure for fact in engine.watch.wait(LeaseLost, chain)] == [True]
    assert engine.kept == {}
    assert (
        engine.broker.ack([Write(lease=lease, body=lease.envelope.body, seq=1)], keep_for=60) == frozenset()
    )
    assert chain.status() is Status.DONE
    engine.close()


@pytest.mark.needs("TIMED_LEASE")
def test_no_step_starts_on_a_lease_that_is_nearly_over_and_cant_be_extended(broker_url: str) -> None:
    """The "may start?" rule: the task is given back, and whoever has a fresh lease goes on."""
    broker = Faulty(broker_url)
    engine = Engine(broker)
    started: list[int] = []

    def slow(args: ArgsMap) -> None:
        broker.before["extend"] = times(10**6, lambda: BrokerUnavailable("cut off"))
        threading.Event().wait(0.9)

    def following(args: ArgsMap) -> None:
        started.append(broker.calls.count("acquire"))

    task = engine.enqueue(slow, following, engine.keep, lease=1.2)
    with engine.app.worker():
        engine.watch.wait(TaskSucceeded, task)
    assert [fact.why for fact in engine.watch.all(TaskReleased, task)] == ["lease"]
    assert len(engine.watch.all(TaskStarted, task)) == 2  # a second delivery, by a second acquire
    assert len(started) == 1
    assert started[0] >= 2
    assert engine.watch.all(TaskCrashed) == []
    engine.close()
