"""The engine: tasks that are enqueued in a transaction of the program's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence

import pytest

from gotasks import App, ArgsMap, Status
from gotasks.broker import BrokerURL, Envelope
from gotasks.conformance.kit.tap import Tap
from gotasks.conformance.kit.transactional import Begun, Transactional
from gotasks.conformance.strict import StrictBroker
from gotasks.errors import (
    BrokerUnavailable,
    ConfigurationError,
    PayloadTooLarge,
    TaskNotFound,
    Unsupported,
)
from tests.backends.contract import stats
from tests.backends.engine import QUEUE, times


def nothing(args: ArgsMap) -> None:
    """A handler that nobody calls."""


class Shop:
    """An app on a broker with transactions, which takes two tasks a call."""

    def __init__(self) -> None:
        self.inner = Transactional.from_url(BrokerURL("memory://?batch=2"))
        self.tap = Tap(self.inner)
        self.strict = StrictBroker(self.tap)
        self.app = App(self.strict)
        self.done: list[int] = []
        self.app.register("add", self.add)
        self.orders = self.app.queue(QUEUE)

    def add(self, args: ArgsMap) -> None:
        self.done.append(args["n"])

    def begin(self) -> Begun:
        return Begun(self.inner)


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.app.close()
    assert shop.strict.misuses == []


def test_a_task_is_there_when_its_transaction_commits(shop: Shop) -> None:
    begun = shop.begin()
    task = shop.orders.enqueue("add", {"n": 1}, connection=begun)
    with pytest.raises(TaskNotFound, match="committed"):
        task.status()
    assert shop.app.drain() == 0
    begun.commit()
    assert task.status() is Status.READY
    assert shop.app.drain() == 1
    assert (task.status(), shop.done) == (Status.DONE, [1])


def test_a_task_isnt_there_when_its_transaction_is_rolled_back(shop: Shop) -> None:
    begun = shop.begin()
    task = shop.orders.enqueue("add", {"n": 1}, connection=begun)
    begun.rollback()
    assert shop.app.drain() == 0
    with pytest.raises(TaskNotFound):
        task.status()


def test_many_go_into_one_transaction_in_several_calls(shop: Shop) -> None:
    begun = shop.begin()
    tasks = shop.orders.enqueue_many("add", ({"n": n} for n in range(5)), connection=begun)
    assert shop.tap.calls == ["enqueue_on"] * 3
    assert shop.app.stats(QUEUE) == stats()
    begun.commit()
    assert shop.app.drain() == 5
    assert shop.done == [0, 1, 2, 3, 4]
    assert {each.status() for each in tasks} == {Status.DONE}


def test_the_handle_is_of_the_task_that_is_there(shop: Shop) -> None:
    begun = shop.begin()
    one, two = (shop.orders.enqueue("add", {"n": n}, unique="order-42", connection=begun) for n in (1, 2))
    three, four = (shop.orders.enqueue("add", {"n": n}, task_id="mine", connection=begun) for n in (3, 4))
    begun.commit()
    assert (one.id == two.id, three.id, four.id) == (True, "mine", "mine")
    shop.app.drain()
    assert shop.done == [1, 3]


@pytest.mark.parametrize("broker_url", ["memory", "redis"], indirect=True)
def test_a_broker_without_transactions_refuses_before_anything_is_read(broker_url: str) -> None:
    app = App(broker_url)
    app.register("add", nothing)
    orders = app.queue(QUEUE)
    read: list[int] = []
    args = ({"n": n} for n in range(3) if read.append(n) is None)  # type: ignore[func-returns-value]
    calls = (
        lambda: orders.enqueue("add", {}, connection=object()),
        lambda: orders.enqueue_many("add", args, connection=object()),
        lambda: asyncio.run(orders.aenqueue("add", {}, connection=object())),
        lambda: asyncio.run(orders.aenqueue_many("add", args, connection=object())),
    )
    for call in calls:
        with pytest.raises(Unsupported, match="connection= needs a broker with TRANSACTIONAL, and this"):
            call()
    assert read == []
    assert app.stats(QUEUE) == stats()
    app.close()


def test_a_connection_of_another_kind(shop: Shop) -> None:
    with pytest.raises(ConfigurationError, match="no transaction"):
        shop.orders.enqueue("add", {"n": 1}, connection=object())
    assert shop.app.drain() == 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_nothing_is_repeated_in_the_callers_transaction(shop: Shop, when: str) -> None:
    """On its own an enqueue would be: the ids are known."""
    hooks = shop.tap.before if when == "before" else shop.tap.after
    hooks["enqueue_on"] = times(1, lambda: BrokerUnavailable("the reply was lost"))
    begun = shop.begin()
    with pytest.raises(BrokerUnavailable, match="the reply was lost") as caught:
        shop.orders.enqueue("add", {"n": 1}, task_id="mine", connection=begun)
    assert caught.value.ids == ("mine",)
    assert shop.tap.calls == ["enqueue_on"]


def test_an_error_names_what_isnt_certain_to_be_in_the_transaction(shop: Shop) -> None:
    begun, calls = shop.begin(), iter(range(9))

    def fail() -> None:
        if next(calls) == 1:
            raise RuntimeError("what a driver says")

    shop.tap.before["enqueue_on"] = fail
    with pytest.raises(BrokerUnavailable, match="RuntimeError") as caught:
        shop.orders.enqueue_many("add", [{"n": n} for n in range(5)], connection=begun)
    stored = [each.id for each, _ in begun.stored]
    assert (len(stored), len(caught.value.ids)) == (2, 3)
    assert not set(stored) & set(caught.value.ids)


def test_what_is_refused_leaves_the_transaction_alone(shop: Shop) -> None:
    begun = shop.begin()
    shop.orders.enqueue("add", {"n": 1}, connection=begun)
    with pytest.raises(PayloadTooLarge):
        shop.orders.enqueue("add", {"n": "x" * 200_000}, connection=begun)
    begun.commit()
    assert shop.app.drain() == 1


# -- async twins --------------------------------------------------------------------------------


class OnLoop(Transactional):
    """Has an asynchronous driver: it must be called on the loop, and with no other thread's help."""

    def _empty(self) -> None:
        super()._empty()
        self.loops: list[tuple[asyncio.AbstractEventLoop, int]] = []

    async def aenqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.loops.append((asyncio.get_running_loop(), threading.get_ident()))
        return self.enqueue_on(connection, envelopes)


def test_an_asynchronous_connection_is_used_on_its_loop() -> None:
    inner = OnLoop.from_url(BrokerURL("memory://?batch=2"))
    strict = StrictBroker(inner)
    app = App(strict)
    app.register("add", nothing)
    orders, begun = app.queue(QUEUE), Begun(inner)

    async def produce() -> tuple[asyncio.AbstractEventLoop, int]:
        await orders.aenqueue("add", {"n": 1}, task_id="mine", connection=begun)
        tasks = await orders.aenqueue_many("add", [{"n": n} for n in range(3)], connection=begun, delay=1)
        assert len({task.id for task in tasks}) == 3
        return asyncio.get_running_loop(), threading.get_ident()

    here = asyncio.run(produce())
    assert inner.loops == [here] * 3  # two batches of the second call
    assert app.stats(QUEUE) == stats()
    begun.commit()
    assert app.stats(QUEUE) == stats(ready=1, scheduled=3)
    assert strict.misuses == []


def test_any_other_connection_is_used_on_a_thread() -> None:
    threads: list[int] = []

    class Threaded(Transactional):
        def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
            threads.append(threading.get_ident())
            return super().enqueue_on(connection, envelopes)

    inner = Threaded.from_url(BrokerURL("memory://"))
    app = App(inner)
    app.register("add", nothing)
    orders, begun = app.queue(QUEUE), Begun(inner)

    async def produce() -> None:
        task = await orders.aenqueue("add", {"n": 1}, connection=begun)
        with pytest.raises(TaskNotFound):
            await task.astatus()

    asyncio.run(produce())
    assert len(threads) == 1
    assert threads != [threading.get_ident()]
    begun.commit()
    assert app.stats(QUEUE) == stats(ready=1)


def test_an_error_on_the_loop_names_the_tasks_too() -> None:
    class Away(OnLoop):
        async def aenqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
            raise BrokerUnavailable("no server")

    inner = Away.from_url(BrokerURL("memory://"))
    app = App(inner)
    app.register("add", nothing)
    with pytest.raises(BrokerUnavailable, match="no server") as caught:
        asyncio.run(app.queue(QUEUE).aenqueue("add", {}, task_id="mine", connection=Begun(inner)))
    assert caught.value.ids == ("mine",)
