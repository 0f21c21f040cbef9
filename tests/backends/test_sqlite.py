"""SQLite: what goes to its driver as it is finds its rows by an index, and fails as all else does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from gotasks.broker import BrokerURL
from gotasks.errors import BrokerUnavailable
from gotasks_sql.broker import SQLBroker
from gotasks_sql.conformance.tables import with_params
from tests.backends.contract import LONG, QUEUE, envelope, put, stats, take, write

pytestmark = pytest.mark.parametrize("sql_url", ["sqlite"], indirect=True)


@pytest.fixture
def broker(sql_url: str) -> Iterator[SQLBroker]:
    broker = SQLBroker.from_url(BrokerURL(with_params(sql_url, timeout="0.5")))
    broker.migrate()
    yield broker
    broker.close()


PARAMS: dict[str, Any] = {
    **dict.fromkeys(("id", "queue"), "x"),
    **dict.fromkeys(
        ("limit", "lease", "token", "seq", "keep", "until", "deaths", "state", "place", "count"), 1
    ),
    "body": b"",
}


@pytest.mark.parametrize(
    "name", ["look", "over", "ready", "take", "extend", "checkpoint", "ack", "ack_and_remove", "release"]
)
def test_a_statement_reads_no_more_than_an_index_says(broker: SQLBroker, name: str) -> None:
    statement = getattr(broker._dialect._sql, name)  # type: ignore[attr-defined]
    with broker._database.engine.connect() as connection:
        steps = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", PARAMS)]
    reading = [step for step in steps if "tasks" in step]
    assert reading
    assert [step for step in reading if not step.startswith("SEARCH")] == []
    if name == "ready":
        assert not any("TEMP B-TREE" in step for step in steps)  # it doesn't sort the backlog


@contextmanager
def filled(broker: SQLBroker) -> Iterator[None]:
    """Within the block the file takes no more than it has."""
    with broker._database.engine.connect() as connection:
        raw: Any = connection.connection.dbapi_connection
    # The pool has this one connection, so that whoever writes has it.
    assert broker._database.engine.pool.checkedin() == 1  # type: ignore[attr-defined]
    raw.execute("PRAGMA max_page_count = 1")
    yield
    raw.execute("PRAGMA max_page_count = 1073741823")


def test_a_full_file_loses_nothing_and_shows_nothing(broker: SQLBroker) -> None:
    put(broker, 3)
    leases = take(broker, 3)
    body = b"a-very-private-body" * 10_000
    writes = [write(leases[0]), write(leases[1], body), write(leases[2])]
    with filled(broker):
        with pytest.raises(BrokerUnavailable, match="full") as told:
            broker.checkpoint(writes)
        with pytest.raises(BrokerUnavailable, match="full"):
            broker.release(writes)
        with pytest.raises(BrokerUnavailable, match="full"):
            broker.ack(writes, keep_for=LONG)
    assert "private" not in f"{told.value!r} {told.value.__cause__!r}"
    assert broker.stats(QUEUE) == stats(leased=3)
    bodies = broker.get([each.envelope.id for each in leases]).values()
    assert {each.body for each in bodies} == {leases[0].envelope.body}  # of none of the three
    assert broker.ack(writes, keep_for=LONG) == frozenset()


def test_who_doesnt_get_its_turn_is_told(broker: SQLBroker) -> None:
    """Those of one process wait for each other before they come to the file."""
    writing, done = threading.Event(), threading.Event()

    def write_on(_connection: sa.Connection) -> None:
        writing.set()
        assert done.wait(60)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(broker._database.run, write_on)
        assert writing.wait(60)
        with pytest.raises(BrokerUnavailable, match="locked"):
            broker.enqueue([envelope("a")])
        done.set()
        slow.result(60)
    assert broker.enqueue([envelope("a")]) == {}


def test_the_leases_of_one_call_end_together(broker: SQLBroker) -> None:
    ids = put(broker, broker.limits.max_batch)
    take(broker, len(ids))
    with broker._database.engine.connect() as connection:
        ends = sa.select(sa.func.count(sa.distinct(broker._dialect.columns.until)))
        assert connection.execute(ends).scalar_one() == 1
