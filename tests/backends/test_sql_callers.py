"""A program's transaction that stays open keeps nobody waiting; a connection that's of no use is told as what it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from gotasks.broker import Broker, BrokerURL
from gotasks.discovery import open_broker
from gotasks.errors import BrokerUnavailable, ConfigurationError
from gotasks_sql.address import Address
from gotasks_sql.conformance.tables import with_params
from tests.backends.contract import LONG, QUEUE, envelope, put, stats, take, take_one, write
from tests.conftest import DATABASE_SERVERS

#: What programs usually have: PostgreSQL's default, and that of MySQL and MariaDB. SQLite has one of its own.
LEVELS = ("READ COMMITTED", "REPEATABLE READ")
PROGRAMS = [("sqlite", None), *itertools.product(DATABASE_SERVERS, LEVELS)]


@pytest.fixture
def broker(sql_url: str) -> Iterator[Broker]:
    """A broker that says soon that it was kept waiting, with tables that are there."""
    broker = open_broker(with_params(sql_url, timeout="5"))
    broker.migrate()
    yield broker
    broker.close()


def engine_of(url: str, level: str | None = None) -> sa.Engine:
    """A program's own engine on the same database; without `level` it has the isolation of the database."""
    return sa.create_engine(Address.of(BrokerURL(url)).url, isolation_level=level, hide_parameters=True)


# -- a transaction that stays open ------------------------------------------------------------------


@pytest.mark.parametrize("sql_url, level", PROGRAMS, indirect=["sql_url"])
def test_who_was_told_that_a_task_is_there_keeps_nobody_waiting(
    sql_url: str, level: str | None, broker: Broker
) -> None:
    """By its id, by its unique key, and by both: neither its worker nor whoever enqueues."""
    broker.enqueue([envelope("m1", unique="k1"), envelope("m2", unique="k2"), envelope("m3")])
    leases = take(broker, 3)
    put(broker, 3)
    engine = engine_of(sql_url, level)
    with engine.connect() as theirs, theirs.begin() as transaction:
        again = [envelope("m2-new", unique="k1"), envelope("m2", unique="k2"), envelope("m3")]
        assert broker.enqueue_on(theirs, again) == {"m2-new": "m1", "m2": "m2", "m3": "m3"}
        # On an index each of these is beside something else: in front, behind, and next to what was asked for.
        for task_id in ("a", "m1-next", "m2-new", "m2-newer", "m4", "z"):
            assert broker.enqueue([envelope(task_id, unique=f"of {task_id}")]) == {}
        assert broker.enqueue([envelope(queue="other"), envelope("m3")]) == {"m3": "m3"}
        assert broker.extend(leases, lease_for=LONG) == frozenset()
        assert broker.checkpoint([write(lease) for lease in leases]) == frozenset()
        assert broker.release([write(leases[0], seq=2)]) == frozenset()
        assert broker.ack([write(lease, seq=2) for lease in leases[1:]], keep_for=0) == frozenset()
        assert len(take(broker, 99)) == 3 + 6 + 1
        transaction.rollback()
    engine.dispose()
    assert broker.stats(QUEUE) == stats(leased=10)


@pytest.mark.parametrize("sql_url", DATABASE_SERVERS, indirect=True)  # SQLite has one writer
def test_what_was_stored_since_their_transaction_began_is_there(sql_url: str, broker: Broker) -> None:
    """Though that transaction doesn't see it, and could ask as often as it likes."""
    engine = engine_of(sql_url, "REPEATABLE READ")
    with engine.connect() as theirs:
        assert broker.enqueue_on(theirs, [envelope("before")]) == {}
        broker.enqueue([envelope("a", unique="k")])
        new = [envelope("a"), envelope("b", unique="k"), envelope("c")]
        assert broker.enqueue_on(theirs, new) == {"a": "a", "b": "a"}
        theirs.commit()
    engine.dispose()
    assert broker.stats(QUEUE) == stats(ready=3)


@pytest.mark.parametrize("sql_url, level", PROGRAMS[1:], indirect=["sql_url"])
def test_a_unique_key_that_is_stored_keeps_nobody_without_one_waiting(
    sql_url: str, level: str | None, broker: Broker
) -> None:
    """InnoDB locks the gap in front of a key that was there before, or that is tried twice; all without a key come into
    the gap in front of the first.
    """
    engine = engine_of(sql_url, level)
    for _ in range(2):  # what keeps that gap apart isn't removed with the tasks
        broker.enqueue([envelope("before", unique="k")])
        assert broker.ack([write(take_one(broker))], keep_for=0) == frozenset()
        with engine.connect() as theirs:
            assert broker.enqueue_on(theirs, [envelope("m1", unique="k")]) == {}
            assert broker.enqueue_on(theirs, [envelope("m2", unique="k")]) == {"m2": "m1"}
            for task_id in ("a", "m1-next", "n", "z"):
                assert broker.enqueue([envelope(task_id)]) == {}
            theirs.commit()
        assert broker.purge(QUEUE) == 5
    engine.dispose()


# -- tables that aren't there -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql_url", ["sqlite"], indirect=True
)  # elsewhere they are made beside the transaction
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
@pytest.mark.parametrize("commits", [True, False])
def test_tables_that_are_made_in_a_transaction_come_or_go_with_it(
    sql_url: str, mode: str, commits: bool
) -> None:
    """It has written, so nobody else can; in a file without a WAL nobody else can even look."""
    broker, engine = open_broker(with_params(sql_url, timeout="5")), engine_of(sql_url)
    with engine.connect() as theirs:
        theirs.exec_driver_sql(f"PRAGMA journal_mode = {mode}")
        theirs.exec_driver_sql("CREATE TABLE notes (text TEXT)")
        theirs.commit()
        theirs.exec_driver_sql("INSERT INTO notes VALUES ('an order')")
        assert broker.enqueue_on(theirs, [envelope("a", unique="k")]) == {}
        new = [envelope("a"), envelope("b", unique="k"), envelope("c")]
        assert broker.enqueue_on(theirs, new) == {"a": "a", "b": "a"}
        if commits:
            theirs.commit()
        else:
            theirs.rollback()
        there = 2 if commits else 0
        assert broker.stats(QUEUE) == stats(ready=there)
        assert broker.enqueue_on(theirs, [envelope("a"), envelope("d")]) == ({"a": "a"} if commits else {})
        theirs.commit()
    engine.dispose()
    put(broker)
    assert broker.stats(QUEUE) == stats(ready=there + (2 if commits else 3))
    broker.close()


# -- connections of no use --------------------------------------------------------------------------


def test_a_session_without_an_engine_is_named(broker: Broker) -> None:
    with orm.Session() as session, pytest.raises(ConfigurationError, match="a Session without an engine"):
        broker.enqueue_on(session, [envelope()])
    assert broker.stats(QUEUE) == stats()


def test_a_session_that_cant_connect_is_told_in_the_brokers_words(sql_url: str, broker: Broker) -> None:
    address = Address.of(BrokerURL(sql_url)).url
    if address.host is None:
        nowhere = address.set(database=f"{address.database}.d/tasks.db")
    else:
        nowhere = address.set(host="127.0.0.1", port=1, username="me", password="s3cr3t")
    engine = sa.create_engine(nowhere)
    with orm.Session(engine) as session, pytest.raises(BrokerUnavailable) as caught:
        broker.enqueue_on(session, [envelope()])
    engine.dispose()
    assert "s3cr3t" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert broker.stats(QUEUE) == stats()


def test_a_connection_that_is_closed_is_told_in_the_brokers_words(sql_url: str, broker: Broker) -> None:
    engine = engine_of(sql_url)
    with engine.connect() as theirs:
        pass
    with pytest.raises(BrokerUnavailable, match="closed"):
        broker.enqueue_on(theirs, [envelope()])
    engine.dispose()
    assert broker.stats(QUEUE) == stats()


# -- connections without transactions ---------------------------------------------------------------


@pytest.mark.parametrize("set_by", ["engine", "connection", "session", "driver"])
def test_a_connection_in_autocommit_is_refused(sql_url: str, broker: Broker, set_by: str) -> None:
    """A task would be there at once, whatever becomes of the transaction that the program believes to be in."""
    options: dict[str, dict[str, Any]] = {
        "engine": {"isolation_level": "AUTOCOMMIT"},
        "session": {"execution_options": {"isolation_level": "AUTOCOMMIT"}},
        "driver": {
            "connect_args": {"isolation_level": None} if "sqlite" in sql_url else {"autocommit": True}
        },
    }
    engine = sa.create_engine(Address.of(BrokerURL(sql_url)).url, **options.get(set_by, {}))
    with engine.connect() as theirs, orm.Session(engine) as session:
        if set_by == "connection":
            theirs.execution_options(isolation_level="AUTOCOMMIT")
        given = session if set_by == "session" else theirs
        with pytest.raises(ConfigurationError, match="connection= is in AUTOCOMMIT"):
            broker.enqueue_on(given, [envelope()])
        assert broker.stats(QUEUE) == stats()
        session.rollback()
        with theirs.begin() as transaction:  # what was refused has begun nothing
            transaction.rollback()
    engine.dispose()


def test_a_connection_that_leaves_autocommit_is_taken(sql_url: str, broker: Broker) -> None:
    engine = engine_of(sql_url, "AUTOCOMMIT")
    with engine.connect() as theirs:
        theirs.execution_options(isolation_level="SERIALIZABLE")
        assert broker.enqueue_on(theirs, [envelope()]) == {}
        theirs.rollback()
        assert broker.stats(QUEUE) == stats()
    engine.dispose()


@pytest.mark.parametrize("sql_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("has_begun", [True, False])
def test_a_program_that_says_begin_itself_has_transactions(
    sql_url: str, broker: Broker, has_begun: bool
) -> None:
    """As SQLAlchemy advises for SQLite, whose driver is then in AUTOCOMMIT by its own account."""
    engine = sa.create_engine(Address.of(BrokerURL(sql_url)).url, connect_args={"isolation_level": None})
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with engine.connect() as theirs:
        if has_begun:
            theirs.exec_driver_sql("SELECT 1")
        assert broker.enqueue_on(theirs, [envelope()]) == {}
        assert broker.stats(QUEUE) == stats()
        theirs.commit()
    engine.dispose()
    assert broker.stats(QUEUE) == stats(ready=1)
