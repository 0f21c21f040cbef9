"""Rows are locked in one order, no more of them than are meant, and no longer than somebody waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from gotasks.broker import BrokerURL, Lease, Record, State
from gotasks.discovery import open_broker
from gotasks.errors import BrokerUnavailable
from gotasks_sql.broker import SQLBroker
from gotasks_sql.conformance.tables import connected, make, schema_of, with_params
from gotasks_sql.schema import LEASED
from tests.backends.contract import LONG, QUEUE, envelope, eventually, ids_of, take, take_one, write
from tests.backends.sql_locks import watched
from tests.conftest import DATABASE_SERVERS

on_servers = pytest.mark.parametrize("sql_url", DATABASE_SERVERS, indirect=True)  # SQLite locks no rows


@pytest.fixture
def broker(sql_url: str) -> Iterator[SQLBroker]:
    make(sql_url)
    broker = SQLBroker.from_url(BrokerURL(sql_url))
    yield broker
    broker.close()


# -- in one order -------------------------------------------------------------------------------------


@on_servers
@pytest.mark.parametrize(
    "operation", ["checkpoint", "extend", "ack", "ack and remove", "release", "cancel", "cancel and remove"]
)
def test_the_rows_of_a_call_are_locked_in_the_order_of_their_ids(
    sql_url: str, broker: SQLBroker, operation: str
) -> None:
    """Whatever their order in the call: else two calls lock each other out."""
    calls: dict[str, Callable[[Sequence[Lease]], object]] = {
        "checkpoint": lambda leases: broker.checkpoint([write(each) for each in leases]),
        "extend": lambda leases: broker.extend(leases, lease_for=LONG),
        "ack": lambda leases: broker.ack([write(each) for each in leases], keep_for=LONG),
        "ack and remove": lambda leases: broker.ack([write(each) for each in leases], keep_for=0),
        "release": lambda leases: broker.release([write(each) for each in leases]),
        "cancel": lambda leases: broker.cancel(ids_of(leases), keep_for=LONG),
        "cancel and remove": lambda leases: broker.cancel(ids_of(leases), keep_for=0),
    }
    broker.enqueue([envelope(each) for each in ("c", "b", "a")])
    leases = take(broker, 3)
    assert ids_of(leases) == ["c", "b", "a"]
    row = schema_of(sql_url).tasks.c.id
    with ThreadPoolExecutor(1) as pool, connected(sql_url) as theirs, watched(sql_url) as waits:
        theirs.execute(sa.select(row).where(row == "b").with_for_update())
        called = pool.submit(calls[operation], leases)
        eventually(waits, what="the call waits for b")
        free = sa.select(row).where(row.in_(["a", "c"])).with_for_update(skip_locked=True)
        assert theirs.execute(free).scalars().all() == ["c"]
        theirs.commit()
        called.result(30)


@pytest.mark.parametrize("sql_url", ["postgresql"], indirect=True)  # InnoDB is told to give up, and repeats
def test_new_rows_are_stored_in_the_order_of_their_ids(sql_url: str, broker: SQLBroker) -> None:
    other, new = open_broker(sql_url), [envelope(each) for each in ("c", "b", "a")]
    row = {"id": "b", "queue": "other", "state": 1, "rank": 0, "place": 0, "body": b"theirs"}
    with ThreadPoolExecutor(1) as pool, connected(sql_url) as theirs, watched(sql_url) as waits:
        theirs.execute(sa.insert(schema_of(sql_url).tasks).values(row))
        enqueued = pool.submit(broker.enqueue, new)
        eventually(waits, what="the call waits for b")
        assert other.enqueue([envelope("c")]) == {}  # where it hasn't been yet
        theirs.commit()
        assert enqueued.result(30) == {"b": "b", "c": "c"}
    other.close()


# -- no more of them ----------------------------------------------------------------------------------


@on_servers
def test_who_claims_what_a_lease_has_left_leaves_the_rest_to_others(sql_url: str, broker: SQLBroker) -> None:
    """To sort what is over, a database would lock all of it, and the next worker would find nothing."""
    row = {"queue": QUEUE, "state": LEASED, "rank": 0, "place": 0, "body": b"body", "lease": 1}
    rows = [{"id": f"t{number:02}", "until": number + 1, **row} for number in range(40)]
    with connected(sql_url) as connection:
        connection.execute(sa.insert(schema_of(sql_url).tasks), rows)
    dialect, engine = broker._dialect, broker._database.engine
    with dialect.transaction(engine) as connection:
        claim = dialect.claim(connection, QUEUE, limit=5, lease=10**9, token=2)
        assert [each.id for each in claim.taken] == [each["id"] for each in rows[:5]]
        assert ids_of(take(broker, 5)) == [each["id"] for each in rows[5:10]]
        assert len(take(broker, 20)) == 20
    assert len(take(broker, 40)) == 10


# -- no longer ----------------------------------------------------------------------------------------


@on_servers
def test_a_statement_that_nobody_waits_for_any_more_ends_on_the_server(
    sql_url: str, broker: SQLBroker
) -> None:
    """A server doesn't see that its client has gone: it would wait for the lock, and then write."""
    hasty = open_broker(with_params(sql_url, timeout="1"))
    broker.enqueue([envelope("a")])
    lease = take_one(hasty)
    row = schema_of(sql_url).tasks.c.id
    with connected(sql_url) as theirs, watched(sql_url) as waits:
        theirs.execute(sa.select(row).where(row == "a").with_for_update())
        with pytest.raises(BrokerUnavailable):
            hasty.checkpoint([write(lease, b"late")])
        eventually(lambda: not waits(), what="nobody waits for a lock")
    hasty.close()
    assert broker.get(["a"]) == {"a": Record(id="a", queue=QUEUE, state=State.LEASED, body=b"body")}
