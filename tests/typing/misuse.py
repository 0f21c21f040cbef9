"""Wrong use of gotasks: mypy --strict must find each of these lines. Where it doesn't, the ignore is an error."""

from __future__ import annotations

import dataclasses

from gotasks import App, ArgsMap, Status, from_args_map, reentrant, step
from gotasks.errors import TaskFailed

app = App("memory://")


@dataclasses.dataclass
class Order:
    """A dataclass as args."""

    order: int


def charge(args: ArgsMap) -> ArgsMap:
    """A handler."""
    return args


def typed(order: Order) -> None:
    """A handler with types."""


App(task_ttl="1000")  # type: ignore[arg-type]
App(["redis://"])  # type: ignore[arg-type]
App("memory://", 1000)  # type: ignore[call-arg]
App(max_payloads=1)  # type: ignore[call-arg]
app.register(charge)  # type: ignore[arg-type]
app.register("checkout", "charge")  # type: ignore[arg-type]
app.register("checkout", charge({}))  # type: ignore[arg-type]
app.job(charge)  # type: ignore[arg-type]
app.queue(7)  # type: ignore[arg-type]

reentrant(charge, max_tries=3)  # type: ignore[call-overload]
reentrant(charge, max_times="3")  # type: ignore[call-overload]
reentrant(charge, on="OSError")  # type: ignore[call-overload]
reentrant("charge")  # type: ignore[call-overload]
step(charge, name=7)  # type: ignore[arg-type]
step(charge, timeout="1")  # type: ignore[arg-type]
reentrant(typed)({"order": 1})  # type: ignore[arg-type]
step(charge)(Order(1))  # type: ignore[arg-type]

orders = app.queue("orders")
orders.enqueue(charge, {})  # type: ignore[arg-type]
orders.enqueue("checkout", {}, 5)  # type: ignore[call-arg]
orders.enqueue("checkout", {}, delay="5")  # type: ignore[arg-type]
orders.enqueue("checkout", {}, later=5)  # type: ignore[call-arg]
orders.enqueue_many("checkout", 5)  # type: ignore[arg-type]

task = orders.enqueue("checkout", {})
task.step = "other"  # type: ignore[misc]
task.wait(timeout="5")  # type: ignore[arg-type]
task.wait() + 1  # type: ignore[operator]
number: int = task.status()  # type: ignore[assignment]
same: bool = task.status() is Status.RUNNING
order: Order = from_args_map({}, dict)  # type: ignore[assignment]
TaskFailed("id")  # type: ignore[call-arg]


async def forgets_to_await() -> None:
    """A coroutine that nobody awaits does nothing."""
    orders.aenqueue("checkout")  # type: ignore[unused-coroutine]
    task.await_result()  # type: ignore[unused-coroutine]
