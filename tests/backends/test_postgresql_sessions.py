"""PostgreSQL: what the broker keeps in its sessions, which is what a pooler between the two may take away."""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import sqlalchemy as sa

from gotasks.broker import Broker
from gotasks.discovery import open_broker
from gotasks.errors import InvalidURL
from gotasks_sql.broker import SQLBroker
from gotasks_sql.conformance.tables import connected
from gotasks_sql.dialects.postgresql import _driver_connection
from gotasks_sql.listener import ListeningWakeups
from gotasks_sql.wakeups import LATE
from tests.backends.contract import LONG, QUEUE, eventually, put, take
from tests.servers import SecretURL


@pytest.fixture
def two(postgresql_url: SecretURL) -> Iterator[tuple[SQLBroker, Broker]]:
    """Two brokers that hear of each other through the server only."""
    waiting, other = open_broker(postgresql_url), open_broker(postgresql_url)
    assert isinstance(waiting, SQLBroker)
    yield waiting, other
    waiting.close()
    other.close()


def test_an_idle_worker_hears_of_a_task_at_once(
    two: tuple[SQLBroker, Broker], caplog: pytest.LogCaptureFixture
) -> None:
    waiting, other = two
    wakeups = waiting._wakeups
    seconds = []
    with ThreadPoolExecutor(1) as pool, caplog.at_level(logging.INFO, "gotasks"):
        for _ in range(7):
            taken = pool.submit(waiting.acquire, QUEUE, limit=1, wait=30, lease_for=LONG)
            # By now it looks by itself once a second only.
            eventually(lambda: wakeups._pauses.get(QUEUE) == LATE, within=20, what="an idle worker")
            start = time.monotonic()
            put(other)
            assert taken.result(10)
            seconds.append(time.monotonic() - start)
    assert statistics.median(seconds) < LATE / 4, seconds
    assert "polled" not in caplog.text


# -- the connection that listens ------------------------------------------------------------------------


def listening(broker: SQLBroker) -> ListeningWakeups:
    """The broker's wakeups, when somebody waits on them."""
    assert isinstance(broker._wakeups, ListeningWakeups)
    broker._wakeups.wait(QUEUE, broker._wakeups.ticket(QUEUE), 0.0)
    return broker._wakeups


def listeners(url: str, wakeups: ListeningWakeups) -> list[int]:
    """The server's processes for connections that listen on these tables."""
    question = sa.text("SELECT pid FROM pg_stat_activity WHERE query = :said")
    with connected(url) as connection:
        return list(connection.execute(question, {"said": f'LISTEN "{wakeups._channel}"'}).scalars())


def test_a_listener_that_is_thrown_out_and_cant_come_back_comes_back_when_it_can(
    two: tuple[SQLBroker, Broker], postgresql_url: SecretURL, caplog: pytest.LogCaptureFixture
) -> None:
    """Meanwhile its workers look for themselves, and the log says so, once."""
    waiting, other = two
    waiting.stats(QUEUE)
    wakeups = listening(waiting)
    eventually(lambda: len(listeners(postgresql_url, wakeups)) == 1, what="a listener")
    nowhere = sa.create_engine("postgresql+psycopg://127.0.0.1:1/nothing")
    connect, tries = wakeups._connect, list[None]()

    def refused() -> psycopg.Connection[object]:
        tries.append(None)
        if len(tries) % 2:
            with nowhere.connect():  # tells it in SQLAlchemy's words, as at the first connection of an engine
                pass
        return _driver_connection(nowhere)  # tells it in the driver's

    wakeups._connect = refused
    with caplog.at_level(logging.INFO, "gotasks"):
        with connected(postgresql_url) as connection:
            for pid in listeners(postgresql_url, wakeups):
                connection.execute(sa.select(sa.func.pg_terminate_backend(pid)))
        eventually(lambda: len(tries) >= 2, what="it tries again")
        put(other)
        assert take(waiting, wait=20.0)
        wakeups._connect = connect
        eventually(lambda: len(listeners(postgresql_url, wakeups)) == 1, what="a listener again")
    assert [each.message.partition(" (")[0] for each in caplog.records] == [
        "PostgreSQL: no wake-ups for now, queues are polled"
    ]
    before = wakeups._tickets[QUEUE]
    put(other)
    eventually(lambda: wakeups._tickets[QUEUE] > before, what="a wake-up for this queue")
    nowhere.dispose()


@pytest.fixture
def fell(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What threads died of."""
    fell: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: fell.append(repr(args.exc_value)))
    return fell


def ended(wakeups: ListeningWakeups) -> bool:
    assert wakeups._thread is not None
    wakeups._thread.join(20)
    return not wakeups._thread.is_alive()


def test_a_close_that_meets_a_listener_before_it_has_connected_ends_it(
    two: tuple[SQLBroker, Broker], fell: list[str]
) -> None:
    """The connections are closed before the listener is told."""
    waiting, _ = two
    waiting.stats(QUEUE)
    waiting._database.close()
    assert ended(listening(waiting))
    assert fell == []


def test_a_listener_ends_with_its_broker_and_leaves_no_connection(
    two: tuple[SQLBroker, Broker], postgresql_url: SecretURL, fell: list[str]
) -> None:
    waiting, _ = two
    waiting.stats(QUEUE)
    wakeups = listening(waiting)
    eventually(lambda: len(listeners(postgresql_url, wakeups)) == 1, what="a listener")
    waiting.close()
    assert ended(wakeups)
    eventually(lambda: listeners(postgresql_url, wakeups) == [], what="no listener")
    assert fell == []


def test_who_waits_after_a_close_starts_no_listener(two: tuple[SQLBroker, Broker]) -> None:
    waiting, _ = two
    waiting.close()
    assert listening(waiting)._thread is None


# -- statements -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, prepared", [("", True), ("prepare_threshold=1", True), ("prepare_threshold=off", False)]
)
def test_statements_are_prepared_unless_that_is_off(
    postgresql_url: SecretURL, given: str, prepared: bool
) -> None:
    broker = open_broker(f"{postgresql_url}&{given}".rstrip("&"))
    assert isinstance(broker, SQLBroker)
    for _ in range(10):
        broker.stats(QUEUE)
    with broker._database.engine.connect() as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar_one()
    broker.close()
    assert (count > 0) is prepared


@pytest.mark.parametrize("given", ["0", "none", "-1", "1.5"])
def test_a_threshold_that_says_nothing_is_refused(given: str) -> None:
    with pytest.raises(InvalidURL, match="prepare_threshold= in the postgresql:// URL takes"):
        open_broker(f"postgresql://127.0.0.1:1/shop?prepare_threshold={given}")
