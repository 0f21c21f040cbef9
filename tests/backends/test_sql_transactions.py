"""Tasks that are enqueued in a program's own transaction on a database: there if, and only if, it commits."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from gotasks import Status
from gotasks.errors import BrokerError, BrokerUnavailable, ConfigurationError, TaskNotFound
from tests.backends.contract import QUEUE, eventually, stats
from tests.backends.sql_shop import Shop
from tests.conftest import DATABASE_SERVERS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shop(sql_url: str) -> Iterator[Shop]:
    shop = Shop(sql_url)
    yield shop
    shop.close()


@pytest.fixture(params=["Connection", "Session", "scoped_session"])
def program(request: pytest.FixtureRequest, shop: Shop) -> Iterator[Any]:
    """What a program hands over, made as programs make it; all have `execute`, `begin_nested`, `commit`, `rollback`."""
    engine = sa.create_engine(shop.address)
    makers: dict[str, Callable[[], Any]] = {
        "Connection": lambda: engine.connect(),
        "Session": lambda: orm.Session(engine),
        "scoped_session": lambda: orm.scoped_session(orm.sessionmaker(engine)),
    }
    made = makers[request.param]()
    yield made
    made.close()
    engine.dispose()


def test_a_task_is_there_when_the_transaction_commits(shop: Shop, program: Any) -> None:
    program.execute(shop.note)
    task = shop.orders.enqueue("add", {"n": 1}, connection=program)
    assert shop.holds(0)
    with pytest.raises(TaskNotFound):
        task.status()
    program.commit()
    assert shop.holds(1)
    assert shop.app.drain() == 1
    assert (task.status(), shop.done) == (Status.DONE, [1])


def test_a_task_isnt_there_when_the_transaction_is_rolled_back(shop: Shop, program: Any) -> None:
    program.execute(shop.note)
    task = shop.orders.enqueue("add", {"n": 1}, connection=program)
    program.rollback()
    assert shop.holds(0)
    assert shop.app.drain() == 0
    with pytest.raises(TaskNotFound):
        task.status()


def test_the_connection_is_of_use_afterwards(shop: Shop, program: Any) -> None:
    """One transaction after another on it, and the task may be the first thing in each."""
    for commits in (True, False, True):
        shop.orders.enqueue("add", {}, connection=program)
        program.execute(shop.note)
        if commits:
            program.commit()
        else:
            program.rollback()
    assert shop.holds(2)


@pytest.mark.parametrize("rolls_back", [True, False])
def test_a_savepoint(shop: Shop, program: Any, rolls_back: bool) -> None:
    program.execute(shop.note)
    shop.orders.enqueue("add", {"n": 1}, connection=program)
    inner = program.begin_nested()
    program.execute(shop.note)
    shop.orders.enqueue("add", {"n": 2}, connection=program)
    if rolls_back:
        inner.rollback()
    else:
        inner.commit()
    program.execute(shop.note)
    shop.orders.enqueue("add", {"n": 3}, connection=program)
    program.commit()
    assert shop.holds(2 if rolls_back else 3)
    shop.app.drain()
    assert shop.done == [1, 3] if rolls_back else [1, 2, 3]


def test_many_in_one_transaction(shop: Shop, program: Any) -> None:
    count = shop.app.dispatch.limits.max_batch + 5
    tasks = shop.orders.enqueue_many("add", ({"n": n} for n in range(count)), connection=program)
    assert shop.app.stats(QUEUE) == stats()
    program.commit()
    assert shop.app.stats(QUEUE) == stats(ready=count)
    assert len({each.id for each in tasks}) == count


def test_ids_and_unique_keys_are_seen_within_the_transaction(shop: Shop, program: Any) -> None:
    before = shop.orders.enqueue("add", {"n": 0}, unique="order-41")
    one, two = (shop.orders.enqueue("add", {"n": n}, unique="order-42", connection=program) for n in (1, 2))
    three, four = (shop.orders.enqueue("add", {"n": n}, task_id="mine", connection=program) for n in (3, 4))
    again = shop.orders.enqueue("add", {"n": 5}, unique="order-41", connection=program)
    program.commit()
    assert (one.id == two.id, three.id, four.id, again.id) == (True, "mine", "mine", before.id)
    shop.app.drain()
    assert shop.done == [0, 1, 3]


def test_what_cant_be_stored_leaves_the_transaction_to_the_program(shop: Shop, program: Any) -> None:
    program.execute(shop.note)
    with pytest.raises(BrokerError):
        shop.orders.enqueue("add", {"n": "x" * 2_000_000}, connection=program)
    shop.orders.enqueue("add", {"n": 1}, connection=program)
    program.commit()
    assert shop.holds(1)


@pytest.mark.parametrize("sql_url", ["postgresql"], indirect=True)
def test_a_transaction_that_has_failed_says_so(shop: Shop, program: Any) -> None:
    """Where an error ends it, as on PostgreSQL."""
    with pytest.raises(sa.exc.DBAPIError):
        program.execute(sa.text("SELECT 1/0"))
    with pytest.raises(BrokerUnavailable, match="aborted") as caught:
        shop.orders.enqueue("add", {"n": 1}, task_id="mine", connection=program)
    assert caught.value.ids == ("mine",)
    program.rollback()
    assert shop.holds(0)


def test_a_waiting_worker_hears_of_the_commit(shop: Shop, program: Any) -> None:
    with shop.app.worker():
        for number in range(3):
            program.execute(shop.note)
            task = shop.orders.enqueue("add", {"n": number}, connection=program)
            program.commit()
            task.wait(timeout=20)
    assert shop.done == [0, 1, 2]


# -- what isn't taken -----------------------------------------------------------------------------


def test_what_isnt_taken_is_named(shop: Shop) -> None:
    engine = sa.create_engine(shop.address)
    driver = engine.raw_connection()
    for given in (object(), "text", engine, driver, driver.driver_connection):
        with pytest.raises(
            ConfigurationError, match=r"^connection= takes an SQLAlchemy Connection or Session"
        ):
            shop.orders.enqueue("add", {}, connection=given)
    driver.close()
    engine.dispose()
    assert shop.holds(0)


@pytest.mark.parametrize("sql_url", DATABASE_SERVERS, indirect=True)
def test_a_connection_to_another_kind_of_database(shop: Shop) -> None:
    engine = sa.create_engine("sqlite://")
    with (
        engine.connect() as other,
        pytest.raises(ConfigurationError, match=r"^connection= is one to sqlite, and this broker's"),
    ):
        shop.orders.enqueue("add", {}, connection=other)
    engine.dispose()
    assert shop.holds(0)


def test_a_synchronous_session_in_an_asynchronous_program(shop: Shop, program: Any) -> None:
    """What a scoped session stands for depends on the thread that asks."""

    async def produce() -> None:
        await shop.orders.aenqueue("add", {"n": 1}, connection=program)

    program.execute(shop.note)
    asyncio.run(produce())
    program.commit()
    assert shop.holds(1)


# -- a program that is killed -----------------------------------------------------------------------

KILLED = """
import sys, sqlalchemy as sa
from gotasks import App
from gotasks.broker import BrokerURL
from gotasks_sql.address import Address
from gotasks_sql.conformance.transactions import notes_of
url, when = sys.argv[1:]
app = App(url)
app.external("add")
orders = app.queue("orders")
with sa.create_engine(Address.of(BrokerURL(url)).url).connect() as connection:
    connection.execute(sa.insert(notes_of(url)).values(text="an order"))
    orders.enqueue("add", {"n": 1}, connection=connection)
    if when == "after":
        connection.commit()
    print("there", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("when, count", [("before", 0), ("after", 1)])
def test_a_program_that_is_killed(shop: Shop, when: str, count: int) -> None:
    words: Sequence[str] = [sys.executable, "-c", KILLED, shop.url, when]
    with subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.kill()
    assert shop.holds(count)
    eventually(lambda: shop.app.drain() == count, what="no lock that the dead one left")
