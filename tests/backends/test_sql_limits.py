"""What a database doesn't take, it isn't asked for: too many parameters, a key twice, a number beyond a column."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from gotasks.broker import Broker, BrokerURL, State
from gotasks_sql.address import Address
from gotasks_sql.broker import SQLBroker
from tests.backends.contract import (
    LONG,
    QUEUE,
    envelope,
    eventually,
    ids_of,
    put,
    stats,
    take,
    take_one,
    write,
)

# -- parameters ---------------------------------------------------------------------------------------


@pytest.fixture
def old(sqlite_url: str) -> Iterator[SQLBroker]:
    """A broker on a SQLite of before 3.32, as far as the parameters of a statement go."""
    number: int | None = getattr(sqlite3, "SQLITE_LIMIT_VARIABLE_NUMBER", None)
    if number is None:
        pytest.skip("the sqlite3 of this Python sets no limits: it does from 3.11 on")
    broker = SQLBroker.from_url(BrokerURL(sqlite_url))
    broker.migrate()

    @sa.event.listens_for(broker._database.engine, "connect")
    def limit(connection: Any, _record: object) -> None:
        connection.setlimit(number, 999)

    yield broker
    broker.close()


def test_999_parameters_are_enough_for_the_largest_calls(old: SQLBroker) -> None:
    most = old.limits.max_batch
    new = [envelope(f"t{number:03}", unique=f"of {number}") for number in range(most)]
    assert old.enqueue(new) == {}
    assert old.enqueue(new) == {each.id: each.id for each in new}
    again = [envelope(unique=each.unique) for each in new]
    assert set(old.enqueue(again).values()) == {each.id for each in new}
    leases = take(old, most)
    assert ids_of(leases) == [each.id for each in new]
    assert old.extend(leases, lease_for=LONG) == frozenset()
    assert old.checkpoint([write(each) for each in leases]) == frozenset()
    assert old.release([write(each, seq=2, queue="other") for each in leases]) == frozenset()
    leases = take(old, most, queue="other")
    assert old.ack([write(each) for each in leases], keep_for=0.1) == frozenset()
    eventually(lambda: take(old) == [] and old.get([each.id for each in new]) == {}, what="no records")
    assert old.enqueue(new) == {}
    leases = take(old, most, lease_for=0.01)  # they are over at once, and claimed again
    eventually(lambda: len(leases := take(old, most)) == most and leases[0].deaths == 1, what="all anew")


def test_999_parameters_are_enough_for_any_number_of_ids(old: SQLBroker) -> None:
    """Of which a call takes as many as it likes."""
    most = old.limits.max_batch
    ids = [each for _ in range(5) for each in put(old, most)]
    assert old.get(ids).keys() == set(ids)
    leases = old.acquire(QUEUE, limit=most, wait=0, lease_for=LONG, ids=ids[1:])
    assert sorted(ids_of(leases)) == sorted(ids[1 : most + 1])
    assert sorted(old.cancel(ids[1 : 3 * most], keep_for=LONG)) == sorted(ids[1 : 3 * most])
    assert len(old.browse(QUEUE, state=State.READY, limit=9999)) == 2 * most + 1
    put(old, most, delay=0.01)
    eventually(lambda: old.stats(QUEUE) == stats(ready=3 * most + 1), what="what was delayed is ready")
    assert len(take(old, most)) == most  # which promotes it
    assert old.purge(QUEUE) == 2 * most + 1
    assert old.stats(QUEUE) == stats(leased=most)


# -- a key twice --------------------------------------------------------------------------------------


def test_of_one_unique_key_twice_in_a_call_the_first_is_stored(sql: Broker) -> None:
    """Whatever the order of their ids."""
    new = [
        envelope("z", unique="k"),
        envelope("a", unique="k"),
        envelope("m"),
        envelope("b", unique="other"),
        envelope("c", unique="k"),
    ]
    assert sql.enqueue(new) == {"a": "z", "c": "z"}
    assert ids_of(take(sql, 9)) == ["z", "m", "b"]


def test_of_one_unique_key_twice_in_a_callers_transaction_the_first_is_stored(
    sql_url: str, sql: Broker
) -> None:
    sql.migrate()
    engine = sa.create_engine(Address.of(BrokerURL(sql_url)).url)
    with engine.connect() as theirs:
        new = [envelope("z", unique="k"), envelope("a", unique="k"), envelope("m")]
        assert sql.enqueue_on(theirs, new) == {"a": "z"}
        theirs.commit()
    engine.dispose()
    assert ids_of(take(sql, 9)) == ["z", "m"]


# -- a number beyond a column ---------------------------------------------------------------------------


@pytest.mark.parametrize("token", [2**63, 2**64 - 1])
def test_a_receipt_with_a_number_that_no_column_holds_is_lost(sql: Broker, token: int) -> None:
    """As any other that isn't the task's: it's no error, and those beside it are written."""
    put(sql, 2)
    lease, other = take(sql, 2)
    forged = type(lease)(
        envelope=lease.envelope,
        receipt=f"{token:016x}.{lease.envelope.id}",
        deaths=0,
        deadline=lease.deadline,
    )
    assert sql.extend([forged, other], lease_for=LONG) == {forged.receipt}
    assert sql.checkpoint([write(forged), write(other)]) == {forged.receipt}
    assert sql.release([write(forged), write(other, seq=2)]) == {forged.receipt}
    other = take_one(sql)
    assert sql.ack([write(forged), write(other)], keep_for=LONG) == {forged.receipt}
    assert sql.ack([write(lease)], keep_for=0) == frozenset()
