"""The engine: tasks that are cancelled, wherever they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from gotasks import App, ArgsMap, Status, context
from gotasks.conformance.kit.engine import Log
from gotasks.errors import TaskCancelled, Unsupported
from gotasks.events import Checkpointed, LeaseLost, StepDone, TaskSucceeded
from tests.backends.conftest import engine_on
from tests.backends.contract import eventually, stats
from tests.backends.engine import QUEUE, Engine, Gate, Steps


def fail(args: ArgsMap) -> None:
    raise ValueError("no")


@pytest.fixture(params=["memory://", "memory://?handoff=true", "memory://?without=ATOMIC_MOVE"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with engine_on(request.param) as engine:
        yield engine


def test_a_task_that_waits_is_cancelled_once(engine: Engine) -> None:
    steps = Steps()
    task = engine.enqueue(steps.one)
    assert task.cancel() is True
    assert task.status() is Status.CANCELLED
    with pytest.raises(TaskCancelled, match=task.id):
        task.wait(timeout=1)
    assert task.cancel() is False
    assert engine.app.drain() == 0
    assert (steps.calls, engine.app.stats(QUEUE)) == ([], stats())


def test_a_task_that_is_done_or_not_known_cant_be_cancelled(engine: Engine) -> None:
    task = engine.enqueue(Steps().one)
    engine.app.drain()
    assert task.cancel() is False
    assert task.status() is Status.DONE
    for unknown in ("unknown", "no id at all!", "x" * 65, ""):
        assert engine.app.task(unknown).cancel() is False


def test_a_task_in_the_fatal_queue_can_be_cancelled(engine: Engine) -> None:
    task = engine.enqueue(fail)
    engine.app.drain(raises=False)
    assert task.status() is Status.FATAL
    assert task.cancel() is True
    assert task.status() is Status.CANCELLED
    assert engine.app.fatal.list() == []


def test_the_async_twin(engine: Engine) -> None:
    task = engine.enqueue(Steps().one)

    async def twice() -> list[bool]:
        return [await task.acancel(), await task.acancel()]

    assert asyncio.run(twice()) == [True, False]
    assert task.status() is Status.CANCELLED


def test_the_step_that_runs_goes_on_and_counts_for_nothing(engine: Engine) -> None:
    gate, steps, seen = Gate(), Steps(), list[bool]()

    def long(args: ArgsMap) -> ArgsMap:
        gate.handler(args)
        seen.append(context.current().revoked)
        return {"long": True}

    task = engine.enqueue(long, steps.two, lease=0.3)
    with Log(engine.app) as log, engine.app.worker():
        eventually(lambda: gate.inside == 1, what="inside")
        assert task.cancel() is True
        engine.watch.wait(LeaseLost, task)  # by the heart, whose extend is told
        gate.open.set()
        eventually(lambda: engine.watch.all(StepDone, task) != [], what="the end of the step")
        assert task.status() is Status.CANCELLED
    assert (seen, steps.calls) == ([True], [])
    assert [len(engine.watch.all(kind, task)) for kind in (LeaseLost, Checkpointed, TaskSucceeded)] == [
        1,
        0,
        0,
    ]
    assert [fact.sure for fact in engine.watch.all(LeaseLost, task)] == [True]
    assert sum("or it was cancelled" in line for line in log.lines) == 1
    assert engine.app.stats(QUEUE) == stats()


def test_an_async_step_that_runs_is_cancelled(local: Engine) -> None:
    begun, ended = list[str](), list[str]()

    async def long(args: ArgsMap) -> None:
        begun.append(context.current().task_id)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    task = local.enqueue(long, lease=0.3)
    with local.app.worker():
        eventually(lambda: begun != [], what="begun")
        assert task.cancel() is True
        eventually(lambda: ended != [], what="the end of the step")
    assert ended == ["cancelled"]
    assert task.status() is Status.CANCELLED
    assert len(local.watch.all(LeaseLost, task)) == 1


def test_a_step_that_ends_before_the_worker_is_told_isnt_followed(local: Engine) -> None:
    """The checkpoint is told that the lease is lost."""
    gate, steps = Gate(), Steps()
    task = local.enqueue(gate.handler, steps.two, lease=60)
    with local.app.worker():
        eventually(lambda: gate.inside == 1, what="inside")
        assert task.cancel() is True
        gate.open.set()
        local.watch.wait(LeaseLost, task)
    assert steps.calls == []
    assert local.watch.all(TaskSucceeded, task) == []
    assert task.status() is Status.CANCELLED


def test_cancelling_needs_no_records() -> None:
    with engine_on("memory://?without=RECORDS,BROWSE") as engine:
        task = engine.enqueue(Steps().one)
        assert [task.cancel(), task.cancel()] == [True, False]
        assert engine.app.drain() == 0


def test_the_record_of_a_cancelled_task_stays_for_the_apps_task_ttl() -> None:
    engine = Engine("memory://", task_ttl=0.2)
    task = engine.enqueue(Steps().one)
    assert task.cancel() is True
    assert task.status() is Status.CANCELLED
    eventually(lambda: engine.broker.get([task.id]) == {}, what="the end of the record")
    engine.close()


def test_a_broker_that_cant_cancel_says_so() -> None:
    app = App("memory://?without=CANCEL")
    app.register("add", Steps().one)
    task = app.queue(QUEUE).enqueue("add", {})
    calls: list[Callable[[], object]] = [task.cancel, lambda: asyncio.run(task.acancel())]
    for call in calls:
        with pytest.raises(Unsupported, match="cancelling a task needs a broker with CANCEL"):
            call()
    assert app.drain() == 1
