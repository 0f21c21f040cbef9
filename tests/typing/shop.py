"""What a program that uses gotasks looks like; mypy --strict must accept every line of it."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, TypedDict

import msgspec
from typing_extensions import assert_type

from gotasks import (
    AckWhen,
    App,
    ArgsMap,
    Capability,
    Job,
    Queue,
    Status,
    TaskHandle,
    context,
    from_args_map,
    reentrant,
    step,
    to_args_map,
)
from gotasks.broker import Broker, QueueStats
from gotasks.errors import TaskFailed, WaitTimeout
from gotasks.events import Event, TaskBuried
from gotasks.memory import MemoryBroker

app = App("memory://", task_ttl=1000, fatal_queue="fatal", include=[], max_payload=1 << 20)


@dataclasses.dataclass
class Order:
    """A dataclass as args."""

    order: int


class Receipt(msgspec.Struct):
    """A struct as args."""

    order: int
    charged: bool = False


class Line(TypedDict):
    """A TypedDict as args."""

    order: int


def charge(args: ArgsMap) -> ArgsMap | None:
    """A plain handler."""
    return {**args, "charge": args["order"]}


async def mail(args: ArgsMap) -> None:
    """An async handler, that lets the map go on."""
    if context.current().revoked:
        return


def typed(order: Order) -> Receipt:
    """A handler with types."""
    return Receipt(order=order.order, charged=True)


def line(args: Line) -> Line:
    """A handler of a TypedDict."""
    return {"order": args["order"] + 1}


@reentrant
def plain_decorator(args: ArgsMap) -> ArgsMap:
    """Reentrant wherever it is used."""
    return args


@reentrant(max_times=5, sleepy_ms=50, backoff=2, jitter=0.1, on=(OSError, TimeoutError), timeout=10)
def with_options(args: ArgsMap) -> None:
    """Reentrant with options."""


@app.job("single")
def single(args: ArgsMap) -> ArgsMap:
    """A job of one step."""
    return args


class Mailer:
    """A method and an object as handlers."""

    def send(self, args: ArgsMap) -> None:
        """A method."""

    def __call__(self, args: ArgsMap) -> None:
        """An object."""


def with_more(args: ArgsMap, more: int = 0) -> ArgsMap:
    """For a partial."""
    return {**args, "more": more}


checkout = app.register(
    "checkout",
    charge,
    reentrant(charge, max_times=3, sleepy_ms=100, on=OSError),
    mail,
    reentrant(mail),
    typed,
    line,
    plain_decorator,
    with_options,
    step(typed, name="again", timeout=3.5),
    reentrant(step(line, name="line again")),
    Mailer().send,
    step(Mailer(), name="object"),
    step(partial(with_more, more=1), name="partial"),
    step(lambda args: args, name="lambda"),
)
orders = app.queue("orders", max_limit=10, monitor_interval=5, lease=30, ack_when=AckWhen.SUCCEED)

assert_type(checkout, Job)
assert_type(single, Job)
assert_type(orders, Queue)
assert_type(checkout({"order": 42}), dict[str, Any])
assert_type(plain_decorator({"order": 42}), dict[str, Any])
assert_type(reentrant(typed)(Order(1)), Receipt)
assert_type(to_args_map(Order(1)), dict[str, Any])
assert_type(from_args_map({"order": 1}, Receipt), Receipt)
assert_type(from_args_map({"order": 1}, Line), Line)


def produce() -> None:
    """Enqueue and wait."""
    task = orders.enqueue("checkout", {"order": 42})
    assert_type(task, TaskHandle)
    assert_type(task.id, str)
    assert_type(task.status(), Status)
    assert_type(task.step, str | None)
    orders.enqueue(checkout, Order(1), delay=1.5, priority=3, unique="key", task_id="id")
    orders.enqueue(checkout)
    assert_type(orders.enqueue_many(checkout, ({"order": n} for n in range(3))), list[TaskHandle])
    assert_type(orders.enqueue(checkout, Order(1), connection=object()), TaskHandle)
    assert_type(orders.enqueue_many(checkout, [Order(1)], connection=object()), list[TaskHandle])
    assert_type(task.cancel(), bool)
    try:
        assert_type(task.wait(timeout=10), dict[str, Any])
    except TaskFailed as error:
        assert_type(error.step, str | None)
    except WaitTimeout:
        assert_type(app.task(task.id).task().tries, int)


async def produce_async() -> None:
    """The same on an event loop."""
    task = await orders.aenqueue("checkout", {"order": 42})
    await orders.aenqueue_many("checkout", [{"order": 43}])
    assert_type(await orders.aenqueue("checkout", {"order": 42}, connection=object()), TaskHandle)
    assert_type(await orders.aenqueue_many("checkout", [{}], connection=object()), list[TaskHandle])
    assert_type(await task.acancel(), bool)
    assert_type(await task.astatus(), Status)
    assert_type(await task.await_result(timeout=10), dict[str, Any])


def work() -> None:
    """Workers, drain, another broker, the fatal queue, events."""

    def listen(event: Event) -> None:
        if isinstance(event, TaskBuried):
            assert_type(event.error, str)

    app.events.listen(listen)
    with app.worker("orders", grace=5) as worker:
        assert_type(worker.healthy, bool)
    with app.using("memory://") as same:
        assert_type(same, App)
        assert_type(app.drain(), int)
    broker: Broker = MemoryBroker()
    with App(broker).using(broker):
        pass
    assert_type(app.queue_len("orders"), int)
    assert_type(app.stats("orders"), QueueStats)
    assert_type(app.capabilities, Capability)
    for each in app.fatal.list(10):
        app.fatal.retry(each.id, from_step="charge", changes={"order": 1}, force=True)
        app.fatal.drop(each.id)
    assert_type(app.external("elsewhere"), str)
    app.run("orders")
    app.close()
