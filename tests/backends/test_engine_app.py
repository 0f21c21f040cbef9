"""The engine: what a program does with an App, its handles and its settings."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from gotasks import App, ArgsMap, Status, reentrant, step
from gotasks.errors import (
    ConfigurationError,
    DuplicateJob,
    InvalidArgs,
    InvalidName,
    PayloadTooLarge,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    UnknownJob,
    WaitTimeout,
)
from tests.backends.contract import eventually, stats
from tests.backends.engine import QUEUE, Engine, Gate


def add(args: ArgsMap) -> ArgsMap:
    return {"n": args["n"] + 1}


async def double(args: ArgsMap) -> ArgsMap:
    return {"n": args["n"] * 2}


def fail(args: ArgsMap) -> None:
    raise ValueError("no")


def in_loop(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


# -- handles ------------------------------------------------------------------------------------


@pytest.mark.needs("RECORDS")
def test_a_handle_follows_its_task(worked: Engine) -> None:
    gate = Gate()
    task = worked.enqueue(step(add, name="first"), step(gate.handler, name="second"), args={"n": 1})
    assert (task.status(), task.step, task.args) == (Status.READY, "first", {"n": 1})
    assert worked.app.queue_len(QUEUE) == 1
    with worked.app.worker():
        eventually(lambda: gate.inside == 1, what="inside")
        assert (task.status(), task.step, task.args) == (Status.RUNNING, "second", {"n": 2})
        gate.open.set()
        assert task.wait(timeout=20) == {"n": 2}
    assert (task.status(), task.step, task.args) == (Status.DONE, None, {"n": 2})
    assert worked.app.task(task.id).wait(timeout=0) == {"n": 2}


def test_a_tasks_id_is_a_uuid_that_sorts_by_time(local: Engine) -> None:
    job = local.app.register("add", add)
    ids = [task.id for task in local.app.queue(QUEUE).enqueue_many(job, [{"n": 1}] * 50)]
    assert all(len(each) == 36 and each[14] == "7" for each in ids)
    assert len(set(ids)) == 50
    first = local.app.queue(QUEUE).enqueue(job, {"n": 1}).id
    eventually(lambda: local.app.queue(QUEUE).enqueue(job, {"n": 1}).id[:13] > first[:13], what="a later id")


@pytest.mark.needs("RECORDS")
def test_wait_raises_when_the_time_is_up_and_the_task_goes_on(worked: Engine) -> None:
    task = worked.enqueue(add, args={"n": 1})
    for timeout in (0, 0.05):
        with pytest.raises(WaitTimeout, match=f"still ready after {timeout:g} s"):
            task.wait(timeout=timeout)
    with pytest.raises(TimeoutError):
        task.wait(timeout=0)
    worked.run()
    assert task.wait(timeout=5) == {"n": 2}


@pytest.mark.needs("RECORDS")
def test_a_task_that_isnt_known_is_not_found(worked: Engine) -> None:
    task = worked.app.task("unknown")
    for ask in (task.status, task.wait, task.task, lambda: task.step, lambda: task.args):
        with pytest.raises(TaskNotFound, match="unknown"):
            ask()


@pytest.mark.needs("RECORDS")
def test_a_record_is_gone_when_its_task_ttl_is_over(broker_url: str) -> None:
    engine = Engine(broker_url, task_ttl=0.3)
    task = engine.enqueue(add, args={"n": 1})
    engine.run()
    eventually(lambda: engine.broker.get([task.id]) == {}, what="the end of the record")
    with pytest.raises(TaskNotFound):
        task.wait(timeout=1)
    engine.close()


def test_wait_says_that_a_task_was_cancelled(local: Engine) -> None:
    task = local.enqueue(add, args={"n": 1})
    local.app.dispatch.cancel([task.id], keep_for=60)
    assert task.status() is Status.CANCELLED
    with pytest.raises(TaskCancelled):
        task.wait(timeout=1)


@pytest.mark.needs("IDEMPOTENT")
def test_task_id_is_stored_once_and_the_handle_is_of_the_one_that_is_there(worked: Engine) -> None:
    worked.app.register("add", add, worked.keep)
    queue = worked.app.queue(QUEUE)
    first = queue.enqueue("add", {"n": 1}, task_id="order-42")
    second = queue.enqueue("add", {"n": 10}, task_id="order-42")
    assert first.id == second.id == "order-42"
    worked.run()
    assert worked.kept == {"order-42": {"n": 2}}
    assert second.wait(timeout=5) == {"n": 2}
    for bad in ("", "a b", "x" * 65, "ä"):
        with pytest.raises(InvalidName):
            queue.enqueue("add", {"n": 1}, task_id=bad)


def test_a_unique_key_gives_the_handle_of_the_task_that_is_there(local: Engine) -> None:
    local.app.register("add", add)
    queue = local.app.queue(QUEUE)
    first, second = (queue.enqueue("add", {"n": n}, unique="order-42") for n in (1, 2))
    assert first.id == second.id
    assert queue.enqueue("add", {"n": 3}).id != first.id


def test_priorities_reach_the_broker(local: Engine) -> None:
    order: list[int] = []
    local.app.register("note", step(lambda args: order.append(args["n"]), name="note"))
    for priority in (0, 9, 5):
        local.app.queue(QUEUE).enqueue("note", {"n": priority}, priority=priority)
    local.app.drain()
    assert order == [9, 5, 0]
    for bad in (-1, 10, True, 1.5):
        with pytest.raises(ConfigurationError, match="priority"):
            local.app.queue(QUEUE).enqueue("note", {}, priority=bad)  # type: ignore[arg-type]


# -- async twins --------------------------------------------------------------------------------


@pytest.mark.needs("RECORDS")
def test_the_async_twins_work_on_a_running_event_loop(worked: Engine) -> None:
    job = worked.app.register("add", add, double)
    failing = worked.app.register("fail", fail)
    queue = worked.app.queue(QUEUE)

    async def main() -> None:
        one = await queue.aenqueue(job, {"n": 1})
        many = await queue.aenqueue_many(job, [{"n": 2}, {"n": 3}])
        bad = await queue.aenqueue(failing)
        assert await one.astatus() is Status.READY
        with pytest.raises(WaitTimeout, match=r"after 0\.05 s"):
            await one.await_result(timeout=0.05)
        with worked.app.worker():
            results = await asyncio.gather(*(each.await_result(timeout=20) for each in [one, *many]))
            assert [result["n"] for result in results] == [4, 6, 8]
            with pytest.raises(TaskFailed, match="ValueError: no"):
                await bad.await_result(timeout=20)
        with pytest.raises(TaskNotFound):
            await worked.app.task("unknown").await_result(timeout=1)

    in_loop(main())


def test_cancelling_await_result_stops_the_waiting_and_not_the_task(local: Engine) -> None:
    task = local.enqueue(add, args={"n": 1})

    async def main() -> None:
        waiting = asyncio.ensure_future(task.await_result())
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    in_loop(main())
    local.run()
    assert task.status() is Status.DONE


# -- jobs ---------------------------------------------------------------------------------------


def test_a_job_can_be_called_without_a_broker() -> None:
    app = App()  # no broker at all
    failures = iter([OSError(), OSError()])

    def flaky(args: ArgsMap) -> None:
        for error in failures:
            raise error

    job = app.register("job", add, double, reentrant(flaky, sleepy_ms=1))
    args = {"n": 1}
    assert job(args) == {"n": 4}
    assert args == {"n": 1}
    with pytest.raises(ValueError, match="no"):
        app.register("fails", fail)({})
    with pytest.raises(InvalidArgs):
        job({"n": object()})


def test_app_job_registers_the_decorated_handler() -> None:
    app = App("memory://")

    @app.job("add")
    def one(args: ArgsMap) -> ArgsMap:
        return add(args)

    assert app.jobs == {"add": one}
    task = app.queue(QUEUE).enqueue(one, {"n": 1})
    app.drain()
    assert task.args == {"n": 2}
    app.close()


def test_a_name_is_registered_once() -> None:
    app = App("memory://")
    app.register("add", add)
    with pytest.raises(DuplicateJob, match="'add' is registered already: add"):
        app.register("add", double)


def test_a_name_that_isnt_registered_is_refused_with_the_nearest_one(local: Engine) -> None:
    local.app.register("checkout", add)
    queue = local.app.queue(QUEUE)
    with pytest.raises(UnknownJob, match=r"did you mean 'checkout'.*app\.external\('chekout'\)"):
        queue.enqueue("chekout")
    with pytest.raises(UnknownJob, match="another App"):
        queue.enqueue(App("memory://").register("checkout", add))
    assert local.app.stats(QUEUE) == stats()


@pytest.mark.needs("RECORDS")
def test_an_external_job_is_enqueued_here_and_run_where_it_is_known(broker_url: str) -> None:
    producer = App(broker_url)
    engine = Engine(producer.dispatch.broker)
    assert producer.external("add") == "add"
    task = producer.queue(QUEUE).enqueue("add", {"n": 1})
    assert task.task().steps is None  # the first checkpoint fills it
    assert [task.step] == [None]

    gate = Gate()
    engine.app.register("add", add, step(gate.handler, name="gate"))
    engine.app.queue(QUEUE)
    with engine.app.worker():
        eventually(lambda: gate.inside == 1, what="inside")
        steps = task.step
        gate.open.set()
        assert task.wait(timeout=20) == {"n": 2}
    assert steps == "gate"
    engine.close()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module `shop_tasks` that registers a job in the App of a module `shop_app`."""
    (tmp_path / "shop_app.py").write_text(
        "from gotasks import App\n\napp = App('memory://', include=['shop_tasks'])\n"
    )
    tasks = """
        from shop_app import app

        @app.job("ship")
        def ship(args):
            return {"shipped": args["order"]}
    """
    (tmp_path / "shop_tasks.py").write_text(textwrap.dedent(tasks))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "shop_app"
    for name in ("shop_app", "shop_tasks"):
        sys.modules.pop(name, None)


def test_include_imports_the_modules_that_register_jobs_when_they_are_needed(module: str) -> None:
    app: App = __import__(module).app
    assert "shop_tasks" not in sys.modules
    task = app.queue(QUEUE).enqueue("ship", {"order": 42})
    assert "shop_tasks" in sys.modules
    app.drain()
    assert task.args == {"shipped": 42}
    assert app.worker().jobs.keys() == {"ship"}
    app.close()


def test_include_of_a_module_that_isnt_there_says_so() -> None:
    app = App("memory://", include=["no_such_module"])
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        _ = app.jobs
    with pytest.raises(ConfigurationError, match="list"):
        App(include="shop.tasks")


# -- args ---------------------------------------------------------------------------------------


def test_args_that_json_cant_hold_are_refused_and_nothing_is_stored(local: Engine) -> None:
    job = local.app.register("add", add)
    queue = local.app.queue(QUEUE)
    for bad in ({"n": object()}, {1: 2}, {"n": float("nan")}, {"n": "\ud800"}, [1], "text", 7):
        with pytest.raises(InvalidArgs):
            queue.enqueue(job, bad)
        with pytest.raises(InvalidArgs):
            queue.enqueue_many(job, [{"n": 1}, bad])
    assert local.app.stats(QUEUE) == stats()


def test_args_that_are_too_large_are_refused_and_nothing_is_stored(local: Engine) -> None:
    job = local.app.register("add", add)
    with pytest.raises(PayloadTooLarge, match="max_payload") as caught:
        local.app.queue(QUEUE).enqueue(job, {"n": "x" * 600_000})  # kept twice: as it is, and as it was
    assert len(caught.value.ids) == 1
    assert local.app.stats(QUEUE) == stats()
    small = App("memory://", max_payload=64 * 1024)
    small.register("add", add)
    with pytest.raises(PayloadTooLarge):
        small.queue(QUEUE).enqueue("add", {"n": "x" * 20_000})


def test_the_args_map_that_was_enqueued_isnt_touched(local: Engine) -> None:
    args = {"list": [1]}
    task = local.enqueue(local.keep, args=args)
    args["list"].append(2)
    local.run()
    assert local.result(task) == {"list": [1]}


def test_enqueue_many_takes_any_iterable_and_goes_over_batches(worked: Engine) -> None:
    job = worked.app.register("job", worked.keep)
    count = worked.app.dispatch.limits.max_batch + 5
    tasks = worked.app.queue(QUEUE).enqueue_many(job, ({"n": n} for n in range(count)))
    assert len({task.id for task in tasks}) == count
    assert worked.app.stats(QUEUE) == stats(ready=count)
    assert worked.app.queue(QUEUE).enqueue_many(job, []) == []
    worked.run()
    assert [worked.kept[task.id]["n"] for task in tasks] == list(range(count))
