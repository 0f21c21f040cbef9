"""The engine: a clean stop (guarantee G9), drain, and programs that run without a worker."""

from __future__ import annotations

import threading
import time

import msgspec
import pytest

from gotasks import App, ArgsMap, Status, reentrant
from gotasks.broker import Capability, Write
from gotasks.errors import ConfigurationError, TaskFailed, Unsupported
from gotasks.events import Checkpointed, StepDone, TaskBuried, TaskCrashed, TaskReleased, TaskSucceeded
from tests.backends.contract import eventually, stats
from tests.backends.engine import QUEUE, Engine, Faulty, Gate


def stop_during(engine: Engine, gate: Gate, inside: int = 1) -> None:
    """Start a worker; stop it while that many handlers are inside; let these go on once it is stopping."""
    worker = engine.app.worker()
    worker.start()
    eventually(lambda: gate.inside == inside, what="handlers inside")
    stopped: list[bool] = []
    stopping = threading.Thread(target=lambda: stopped.append(worker.stop()), daemon=True)
    stopping.start()
    eventually(worker._stopping.is_set, what="the stop")
    gate.open.set()
    stopping.join(20)
    assert stopped == [True]  # every handler ended in time


@pytest.mark.needs("RECORDS")
def test_a_stop_lets_the_running_handler_finish_and_starts_no_further_step(worked: Engine) -> None:
    gate = Gate()
    calls: list[str] = []

    def first(args: ArgsMap) -> ArgsMap:
        gate.handler(args)
        return {**args, "first": True}

    def second(args: ArgsMap) -> ArgsMap:
        calls.append("second")
        return {**args, "second": True}

    task = worked.enqueue(first, second, worked.keep, args={"order": 42})
    stop_during(worked, gate)

    assert calls == []
    assert task.status() is Status.READY
    assert task.step is not None
    assert task.step.endswith("second")
    assert task.args == {"order": 42, "first": True}
    assert worked.watch.all(Checkpointed, task) == []  # one write carries the new state and gives it back
    (lease,) = worked.broker.acquire(QUEUE, limit=1, wait=0, lease_for=0.2)
    assert lease.deaths == 0  # nothing says "crashed", so a step that isn't reentrant may go on
    worked.broker.release([Write(lease=lease, body=lease.envelope.body, seq=1)])

    worked.run()
    assert worked.result(task) == {"order": 42, "first": True, "second": True}
    assert (gate.calls, calls) == (1, ["second"])
    assert worked.watch.all(TaskCrashed) == []


@pytest.mark.needs("RECORDS")
def test_a_stop_lets_the_last_step_end_its_task(worked: Engine) -> None:
    gate = Gate()
    task = worked.enqueue(gate.handler)
    stop_during(worked, gate)
    assert task.status() is Status.DONE
    assert len(worked.watch.all(TaskSucceeded, task)) == 1


def test_a_stop_gives_back_what_was_taken_and_not_begun(worked: Engine) -> None:
    gate = Gate()
    tasks = worked.app.queue(QUEUE, max_limit=2).enqueue_many(
        worked.app.register("gate", gate.handler, worked.keep), [{"n": n} for n in range(6)]
    )
    stop_during(worked, gate, inside=2)
    assert worked.app.stats(QUEUE) == stats(ready=6)
    assert worked.watch.all(TaskBuried) == []
    assert {fact.why for fact in worked.watch.all(TaskReleased)} == {"stop"}

    worked.run()
    assert worked.kept.keys() == {task.id for task in tasks}
    assert gate.calls == 6


def test_a_stop_is_the_end_of_the_running_handler_not_of_its_grace(
    worked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # what an idle worker waits for is as long as ever
    gate = Gate()
    worked.enqueue(gate.handler)
    began = time.monotonic()
    stop_during(worked, gate)
    assert time.monotonic() - began < 4  # grace is 30 s; a wait for a task takes up to 1 s


@pytest.mark.needs("TIMED_LEASE")
def test_a_handler_that_outlasts_the_grace_time_is_a_crash(worked: Engine) -> None:
    gate = Gate()
    careful = worked.enqueue(reentrant(gate.handler), worked.keep, lease=worked.short)
    worker = worked.app.worker(grace=0.1)
    worker.start()
    eventually(lambda: gate.inside == 1, what="inside")
    assert worker.stop() is False
    gate.open.set()
    worked.run()
    assert worked.result(careful) == {}
    assert len(worked.watch.all(TaskCrashed, careful)) == 1


def test_stop_is_idempotent_and_a_worker_that_never_started_can_be_stopped(local: Engine) -> None:
    local.app.register("job", local.keep)
    worker = local.app.worker(QUEUE)
    assert worker.stop() is True
    assert worker.stop() is True
    with local.app.worker(QUEUE) as running:
        assert running.healthy
        running.stop()
    assert running.healthy


def test_a_worker_may_be_started_from_any_thread(local: Engine) -> None:
    task = local.enqueue(local.keep)

    def main() -> None:
        with local.app.worker():
            task.wait(timeout=20)

    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    thread.join(25)
    assert local.result(task) == {}


def test_two_workers_share_a_queue_and_run_each_task_once(worked: Engine) -> None:
    job = worked.app.register("job", worked.keep, lambda_two)
    worked.app.queue(QUEUE, max_limit=3).enqueue_many(job, [{"n": n} for n in range(200)])
    with worked.app.worker(), worked.app.worker():
        worked.watch.wait(TaskSucceeded, count=200)
    assert len(worked.watch.all(StepDone)) == 400
    assert sorted(args["n"] for args in worked.kept.values()) == list(range(200))


def lambda_two(args: ArgsMap) -> None:
    return None


def test_a_worker_refuses_to_start_without_jobs_or_queues() -> None:
    app = App("memory://")
    app.queue(QUEUE)
    with pytest.raises(ConfigurationError, match="no job is registered"):
        app.worker()
    app = App("memory://")
    app.register("job", lambda_two)
    with pytest.raises(ConfigurationError, match="no queue"):
        app.worker()


def test_run_takes_the_main_thread(local: Engine) -> None:
    local.app.register("job", local.keep)
    errors: list[BaseException] = []

    def main() -> None:
        try:
            local.app.run(QUEUE)
        except ConfigurationError as error:
            errors.append(error)

    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    thread.join(20)
    assert "main thread" in str(errors[0])


# -- drain --------------------------------------------------------------------------------------


@pytest.mark.needs("DELAY")
def test_drain_runs_all_that_is_due_in_this_thread_and_says_how_many_deliveries(broker_url: str) -> None:
    engine = Engine(broker_url)
    threads: set[int] = set()

    def here(args: ArgsMap) -> None:
        threads.add(threading.get_ident())

    job = engine.app.register("job", here, engine.keep)
    a, b = engine.app.queue("a"), engine.app.queue("b")
    a.enqueue_many(job, [{}] * 3)
    b.enqueue(job)
    later = b.enqueue(job, delay=60)
    assert engine.app.drain() == 4
    assert threads == {threading.get_ident()}
    assert len(engine.kept) == 4
    assert later.status() is Status.SCHEDULED
    assert engine.app.drain() == 0
    engine.close()


def test_drain_serves_the_named_queues_only(local: Engine) -> None:
    job = local.app.register("job", local.keep)
    local.app.queue("a").enqueue(job)
    local.app.queue("b").enqueue(job)
    assert local.app.drain("b") == 1
    assert local.app.stats("a") == stats(ready=1)


@pytest.mark.needs("IN_PLACE")
def test_drain_runs_everything_and_then_raises_what_failed_first(broker_url: str) -> None:
    engine = Engine(broker_url)

    def fail(args: ArgsMap) -> None:
        raise ValueError(f"no {args['n']}")

    job = engine.app.register("fails", fail)
    tasks = engine.app.queue(QUEUE).enqueue_many(job, [{"n": 1}, {"n": 2}])
    good = engine.enqueue(engine.keep)
    with pytest.raises(TaskFailed, match="ValueError: no 1") as caught:
        engine.app.drain()
    assert caught.value.task_id == tasks[0].id
    assert engine.result(good) == {}
    assert engine.app.stats("fatal") == stats(ready=2)

    engine.app.queue(QUEUE).enqueue(job, {"n": 3})
    assert engine.app.drain(raises=False) == 1
    engine.close()


def test_drain_runs_what_its_tasks_enqueue(local: Engine) -> None:
    def parent(args: ArgsMap) -> None:
        local.app.queue(QUEUE).enqueue("child")

    local.app.register("child", local.keep)
    local.enqueue(parent)
    assert local.app.drain() == 2
    assert len(local.kept) == 1


@pytest.mark.needs("IN_PLACE")
def test_a_drained_step_that_takes_longer_than_its_lease_doesnt_lose_its_task(broker_url: str) -> None:
    engine = Engine(broker_url)

    def slow(args: ArgsMap) -> None:
        threading.Event().wait(engine.short * 1.2)

    task = engine.enqueue(slow, engine.keep, lease=engine.short)
    assert engine.app.drain() == 1
    assert engine.result(task) == {}
    engine.close()


# -- delayed tasks ------------------------------------------------------------------------------


@pytest.mark.needs("DELAY")
def test_a_delayed_task_runs_when_it_is_due(worked: Engine) -> None:
    job = worked.app.register("job", worked.keep)
    began = time.monotonic()
    later = worked.app.queue(QUEUE).enqueue(job, {"n": 2}, delay=0.5)
    now = worked.app.queue(QUEUE).enqueue(job, {"n": 1})
    assert later.status() is Status.SCHEDULED
    assert worked.app.queue_len(QUEUE) == 1
    with worked.app.worker():
        worked.watch.wait(TaskSucceeded, later)
        assert 0.49 <= time.monotonic() - began < 3
    assert [fact.task_id for fact in worked.watch.all(TaskSucceeded)] == [now.id, later.id]


@pytest.mark.parametrize("delay", [-1, float("inf"), float("nan"), True, "1"])
def test_a_delay_that_makes_no_sense_is_refused(local: Engine, delay: float) -> None:
    job = local.app.register("job", local.keep)
    with pytest.raises(ConfigurationError, match="delay"):
        local.app.queue(QUEUE).enqueue(job, delay=delay)
    with pytest.raises(ConfigurationError, match="delay"):
        local.app.queue(QUEUE).enqueue_many(job, [{}], delay=delay)


def test_what_the_broker_doesnt_have_is_refused_before_anything_is_stored() -> None:
    engine = Engine("memory://?without=DELAY,PRIORITY,UNIQUE,RECORDS,BROWSE,CANCEL")
    job = engine.app.register("job", engine.keep)
    queue = engine.app.queue(QUEUE)
    for options, capability in (
        ({"delay": 1.0}, Capability.DELAY),
        ({"priority": 3}, Capability.PRIORITY),
        ({"unique": "key"}, Capability.UNIQUE),
    ):
        with pytest.raises(Unsupported, match=str(capability.name)):
            queue.enqueue(job, **options)
    task = engine.app.task("some-id")
    for ask in (task.status, task.wait, task.task, lambda: task.step, lambda: task.args):
        with pytest.raises(Unsupported, match="RECORDS"):
            ask()
    assert engine.app.stats(QUEUE) == stats()
    engine.close()


def test_an_interrupt_that_comes_before_the_wait_has_begun_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fetcher is on its way into `acquire` when the worker is stopped: the stop doesn't sit the wait out."""
    monkeypatch.setattr("gotasks.worker.fetcher.WAIT", 30.0)
    broker = Faulty("memory://")
    interrupted = threading.Event()
    entered = threading.Event()

    def interrupt(queue: str) -> None:
        interrupted.set()
        broker.inner.interrupt(queue)

    def enter() -> None:
        entered.set()
        assert interrupted.wait(10)

    broker.before["acquire"] = enter
    monkeypatch.setattr(broker, "interrupt", interrupt)
    engine = Engine(broker)
    engine.app.register("keep", engine.keep)
    engine.app.queue(QUEUE)
    worker = engine.app.worker(QUEUE)
    worker.start()
    assert entered.wait(10)
    began = time.monotonic()
    worker.stop()
    assert time.monotonic() - began < 5
    engine.close()


def test_a_drain_asks_for_no_longer_lease_than_the_broker_has() -> None:
    broker = Faulty("memory://")
    broker.limits = msgspec.structs.replace(broker.limits, max_lease=10.0)
    engine = Engine(broker, how="drain")
    task = engine.enqueue(engine.keep)
    engine.run()
    engine.result(task)
    assert {asked["lease_for"] for asked in broker.asked} == {10.0}
    engine.close()
