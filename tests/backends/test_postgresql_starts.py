"""Where PostgreSQL's claims begin: what has been worked off costs the next ones nothing, and nothing is passed over."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from gotasks_sql.broker import SQLBroker
from gotasks_sql.dialects import postgresql_starts
from gotasks_sql.dialects.postgresql_starts import FIRST, Start
from gotasks_sql.schema import SCHEDULED
from tests.backends.contract import QUEUE, envelope, eventually, ids_of, put, take, take_one, write

pytestmark = pytest.mark.parametrize("sql_url", ["postgresql"], indirect=True)


@pytest.fixture
def broker(untended: SQLBroker) -> SQLBroker:
    """The one on which all is tried."""
    return untended


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """No claim looks from the start because of the time alone."""
    monkeypatch.setattr(postgresql_starts, "_EVERY", 1000.0)


def start_of(broker: SQLBroker) -> Start:
    """Where the next claim begins."""
    dialect: Any = broker._dialect
    return dialect._starts.of(QUEUE)  # type: ignore[no-any-return]


def pages_of_a_claim(broker: SQLBroker, start: Start) -> int:
    """How many pages a claim of ten tasks reads to find them. (It takes them.)"""

    def read(node: Mapping[str, Any]) -> int:
        by = node.get("Index Name", "").endswith(("_ready", "_timed"))
        own = node["Shared Hit Blocks"] + node["Shared Read Blocks"] if by else 0
        return own + sum(read(each) for each in node.get("Plans", ()))

    dialect: Any = broker._dialect
    params = {"queue": QUEUE, "limit": 10, "lease": 10**9, "token": 1, "promoted": False, **start._asdict()}
    with broker._database.engine.connect() as connection:
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {dialect._sql.claim}"
        return read(connection.exec_driver_sql(explain, params).scalar_one()[0]["Plan"])


@pytest.mark.usefixtures("seldom")
def test_what_was_worked_off_since_the_last_vacuum_costs_a_claim_nothing(broker: SQLBroker) -> None:
    for _ in range(20):
        put(broker, 1000)
    for _ in range(19):  # their leases are over by the time of the last claim, had they not been acked
        broker.ack([write(each) for each in take(broker, 1000, lease_for=0.001)], keep_for=1000)
    take(broker, 10)

    assert start_of(broker) > FIRST
    assert pages_of_a_claim(broker, start_of(broker)) < 60
    assert pages_of_a_claim(broker, FIRST) > 100


@pytest.mark.usefixtures("seldom")
def test_what_goes_before_comes_first_wherever_a_claim_begins(broker: SQLBroker) -> None:
    put(broker, 10)
    (returned, _) = take(broker, 2)
    assert start_of(broker) > FIRST
    broker.release([write(returned)])
    broker.enqueue([envelope("urgent", priority=5)])

    assert ids_of(take(broker, 2)) == ["urgent", returned.envelope.id]
    broker.enqueue([envelope("again", priority=5)])
    assert ids_of(take(broker, 1)) == ["again"]
    assert start_of(broker).rank == 0  # what was passed of the usual rank stays passed


@pytest.mark.usefixtures("seldom")
def test_a_claim_locks_no_task_that_it_has_no_room_for(broker: SQLBroker) -> None:
    _, normal, _ = put(broker, 3)
    take(broker)
    assert start_of(broker) > FIRST
    broker.enqueue([envelope("urgent", priority=5)])

    dialect = broker._dialect
    with dialect.transaction(broker._database.engine) as connection:
        claimed = dialect.claim(connection, QUEUE, limit=1, lease=10**9, token=2)
        assert [each.id for each in claimed.taken] == ["urgent"]
        assert ids_of(take(broker)) == [normal]


@pytest.mark.usefixtures("seldom")
def test_a_lower_task_whose_lease_is_over_is_no_reason_to_begin_at_the_start(broker: SQLBroker) -> None:
    lower = put(broker)
    take(broker, lease_for=0.001)
    urgent = [envelope(priority=5) for _ in range(50)]
    broker.enqueue(urgent)

    taken = []
    for _ in range(5):
        taken += ids_of(take(broker, 10))
        assert start_of(broker) > FIRST
    assert taken == [each.id for each in urgent]
    assert ids_of(take(broker)) == lower


@pytest.mark.usefixtures("seldom")
def test_a_lease_that_is_over_is_found_wherever_a_claim_begins(broker: SQLBroker) -> None:
    ids = put(broker, 2000)
    assert ids_of(take(broker, lease_for=0.2)) == ids[:1]
    taken = iter(lambda: take_one(broker).envelope.id, None)

    assert ids[0] in itertools.islice(taken, 1998)


@pytest.mark.usefixtures("seldom")
def test_what_became_due_is_found_wherever_a_claim_begins(broker: SQLBroker) -> None:
    put(broker, delay=0.2)
    put(broker, 2000)
    # Not by `stats`, which counts what is due with what is ready.
    scheduled = sa.select(sa.func.count()).where(broker._dialect.columns.state == SCHEDULED)
    taken = 0
    with broker._database.engine.connect() as connection:
        while connection.execute(scheduled).scalar_one():
            taken += len(take(broker))

    assert 0 < taken < 2000


@pytest.mark.usefixtures("seldom")
def test_more_than_is_promoted_at_once_becomes_due_before_a_backlog(broker: SQLBroker) -> None:
    put(broker, 500)
    urgent = {each.id: each for each in (envelope(priority=5, delay=0.1) for _ in range(1000))}
    broker.enqueue(list(urgent.values()))
    eventually(lambda: broker.stats(QUEUE).scheduled == 0, what="all of it due")

    taken = [lease for _ in range(10) for lease in take(broker, 100)]
    assert set(ids_of(taken)) == urgent.keys()


@pytest.mark.usefixtures("seldom")
def test_where_nothing_follows_a_claim_sees_what_was_committed_late(broker: SQLBroker) -> None:
    with broker._dialect.transaction(broker._database.engine) as connection:
        broker.enqueue_on(connection, [envelope("late")])
        ids = put(broker, 2)
        assert ids_of(take(broker, 2)) == ids
        assert start_of(broker) > FIRST

    assert ids_of(take(broker, 1)) == ["late"]


def test_in_a_backlog_what_was_committed_late_is_seen_within_seconds(broker: SQLBroker) -> None:
    taken: list[str] = []
    with broker._dialect.transaction(broker._database.engine) as connection:
        broker.enqueue_on(connection, [envelope("late")])
        for _ in range(20):
            put(broker, 1000)
        while len(taken) < 100:
            taken += ids_of(take(broker))
    committed = time.monotonic()
    while "late" not in taken:
        taken += ids_of(take(broker))

    assert len(taken) < 20_000
    assert time.monotonic() - committed < 10
