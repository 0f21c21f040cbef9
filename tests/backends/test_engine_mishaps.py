"""Mishaps: handlers that leave, servers that change their mind, gotasks' own errors. None may cost a task."""

from __future__ import annotations

import asyncio
import sys
import threading
from datetime import datetime, timezone
from typing import Any

import pytest

from gotasks import AckWhen, App, ArgsMap, codec, step
from gotasks.broker import Write
from gotasks.errors import BrokerUnavailable, InDoubt, Rejected, TaskNotFound
from gotasks.events import BrokerDown
from gotasks.job import Handler
from gotasks.task import Outcome, Status, Task
from tests.backends.contract import eventually
from tests.backends.engine import QUEUE, Engine, Faulty


def test_an_async_handler_that_exits_takes_neither_loop_nor_heart_with_it() -> None:
    engine = Engine("memory://")
    go_on = threading.Event()

    async def leaves(args: ArgsMap) -> None:
        if args["leave"]:
            sys.exit(3)
        await asyncio.to_thread(go_on.wait, 20)

    neighbour = engine.enqueue(leaves, args={"leave": False}, lease=1)
    queue = engine.app.queue(QUEUE)
    with engine.app.worker() as worker:
        eventually(lambda: neighbour.status() is Status.RUNNING, what="the neighbour")
        leaving = queue.enqueue("job-0", {"leave": True})
        eventually(lambda: leaving.status() is Status.FATAL, what="the end of what left")
        later = queue.enqueue("job-0", {"leave": False})
        go_on.set()
        assert later.wait(10) == {"leave": False}
        assert neighbour.wait(10) == {"leave": False}
        assert worker.healthy
    assert engine.failure(leaving).error == "SystemExit: 3"


def test_an_error_of_gotasks_itself_lets_the_lease_end(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine("memory://")
    encode, failed = codec.encode, threading.Event()

    def fails_once(task: Task) -> bytes:
        if not failed.is_set():
            failed.set()
            raise MemoryError
        return encode(task)

    task = engine.enqueue(nothing(), lease=engine.short)
    monkeypatch.setattr(codec, "encode", fails_once)
    with engine.app.worker():
        eventually(lambda: task.status() is Status.FATAL, what="its end")
    assert failed.is_set()
    assert engine.failure(task).outcome is Outcome.IN_DOUBT


def test_a_stop_may_take_for_ever_and_says_the_same_twice() -> None:
    engine = Engine("memory://")
    engine.enqueue(nothing())
    worker = engine.app.worker(grace=float("inf"))
    worker.start()
    assert worker.stop() is True
    assert worker.stop() is True
    block = threading.Event()
    engine.enqueue(step(lambda _: block.wait(20) and None, name="long"))
    short = engine.app.worker(grace=0.05)
    short.start()
    eventually(lambda: engine.app.stats(QUEUE).leased == 1, what="the long one")
    assert short.stop() is False
    assert short.stop() is False
    block.set()


def test_a_resumed_task_is_judged_by_its_steps_names_not_by_their_places() -> None:
    calls: list[str] = []

    def named(name: str, error: type[Exception] | None = None) -> Handler[..., Any]:
        def call(_: ArgsMap) -> None:
            calls.append(name)
            if error is not None:
                raise error

        return step(call, name=name)

    old = App("memory://")
    old.register("job", named("a"), named("b"), named("c", ValueError))
    task = old.queue(QUEUE).enqueue("job")
    old.drain(raises=False)
    new = App(old.dispatch.broker)
    new.register("job", named("x"), named("a"), named("b"), named("c"))
    with pytest.raises(InDoubt, match="'b'"):
        new.fatal.retry(task.id, from_step="b")
    assert new.fatal.retry(task.id, from_step="c") == QUEUE

    # The same, with `c` in doubt.
    broker = old.dispatch.broker
    (lease,) = broker.acquire(QUEUE, limit=1, wait=0, lease_for=0.05)
    record = codec.decode(lease.envelope.body)
    record.steps = ("a", "b", "c")
    record.current_handler_index = 2
    broker.checkpoint([Write(lease=lease, body=codec.encode(record), seq=1)])
    old.queue("other")  # only to have more than one
    eventually(lambda: old.drain(raises=False) == 1, what="the end of the lease")
    with pytest.raises(InDoubt, match="'c' may have been started"):
        new.fatal.retry(task.id, from_step="c")
    assert calls == ["a", "b", "c"]


def test_a_repeated_enqueue_that_is_rejected_is_unknown_not_certain() -> None:
    broker = Faulty("memory://")
    app = App(broker)
    app.register("job", nothing())

    def lost() -> None:
        broker.after.clear()
        broker.before["enqueue"] = full
        raise BrokerUnavailable("the reply is lost")

    def full() -> None:
        raise Rejected("no room", ids=["mine"])

    broker.after["enqueue"] = lost
    with pytest.raises(BrokerUnavailable) as caught:
        app.queue(QUEUE).enqueue("job", {}, task_id="mine")
    assert caught.value.ids == ("mine",)
    assert app.task("mine").status() is Status.READY


@pytest.mark.parametrize("timeout", [False, True])
def test_ack_when_acquired_keeps_what_a_full_server_doesnt_take(*, timeout: bool) -> None:
    broker = Faulty("memory://")
    engine = Engine(broker)
    block = threading.Event()

    def fails(_: ArgsMap) -> None:
        broker.before["enqueue"] = full
        if timeout:
            block.wait(20)
        raise ValueError("broken")

    def full() -> None:
        raise Rejected("no room", ids=[task.id])

    task = engine.enqueue(
        step(fails, name="fails", timeout=0.2 if timeout else None), ack_when=AckWhen.ACQUIRED, lease=1
    )
    with engine.app.worker() as worker:
        refused = engine.watch.wait(BrokerDown, count=2)
        assert worker.healthy
        broker.before.clear()
        eventually(lambda: engine.app.stats("fatal").ready == 1, what="the task in the fatal queue")
        block.set()
        eventually(lambda: worker.in_flight(QUEUE) == 0, what="nothing in flight")
    assert "no room" in refused[0].error
    outcome = Outcome.TIMED_OUT if timeout else Outcome.FAILED
    assert engine.failure(task).outcome is outcome


def test_where_a_queue_keeps_no_records_the_error_says_so() -> None:
    engine = Engine("memory://")
    task = engine.enqueue(nothing(), ack_when=AckWhen.ACQUIRED)
    engine.run()
    with pytest.raises(TaskNotFound, match=r"AckWhen\.ACQUIRED"):
        task.status()


@pytest.mark.needs("DELAY")
def test_a_delay_of_thousands_of_years_is_for_the_broker_to_judge(broker_url: str) -> None:
    app = App(broker_url)
    app.register("job", nothing())
    queue = app.queue(QUEUE)
    if app.dispatch.limits.max_delay is None:
        assert queue.enqueue("job", {}, delay=1e12).status() is Status.SCHEDULED
    else:
        with pytest.raises(Rejected, match="at the most"):
            queue.enqueue("job", {}, delay=1e12)
    assert codec.in_future(1e12).startswith(str(datetime.max.replace(tzinfo=timezone.utc).year))
    app.close()


def nothing() -> Handler[..., Any]:
    """A handler that does nothing."""
    return step(lambda _: None, name="nothing")
