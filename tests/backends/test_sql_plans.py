"""How PostgreSQL finds the rows: by an index, in a table of which it knows nothing yet, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from gotasks.broker import Broker, BrokerURL, State
from gotasks_sql.broker import SQLBroker
from gotasks_sql.conformance.tables import with_params
from tests.backends.contract import LONG, QUEUE, envelope, take, write

pytestmark = pytest.mark.parametrize("sql_url", ["postgresql"], indirect=True)

#: The nodes of a plan that read no more of a table than an index says.
BY_INDEX = {"Index Scan", "Index Only Scan"}

#: A statement as the driver gets it, and its parameters.
Said = tuple[str, Any]


@pytest.fixture
def broker(untended: SQLBroker) -> SQLBroker:
    """The one on which all is tried."""
    return untended


def said_by(broker: SQLBroker, work: Callable[[], object]) -> list[Said]:
    """What `work` says to the server."""
    said: list[Said] = []

    def listen(_connection: object, _cursor: object, statement: str, params: Any, *_: object) -> None:
        said.append((statement, params))

    engine = broker._database.engine
    sa.event.listen(engine, "before_cursor_execute", listen)
    try:
        work()
    finally:
        sa.event.remove(engine, "before_cursor_execute", listen)
    return said


def scans(broker: SQLBroker, said: Sequence[Said]) -> list[dict[str, Any]]:
    """The nodes of their plans that read the table of tasks, on the broker's own connection."""
    table = broker._dialect.tasks.name
    found = []

    def walk(node: dict[str, Any]) -> None:
        if node.get("Relation Name") == table and node["Node Type"] != "ModifyTable":
            found.append(node)
        for each in node.get("Plans", ()):
            walk(each)

    with broker._database.engine.connect() as connection:
        for statement, params in said:
            plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", params).scalar_one()
            walk(plan[0]["Plan"])
    return found


def works(broker: Broker) -> None:
    """Each operation once, on tasks of each kind, with one behind it that isn't meant."""
    ids = [f"t{number}" for number in range(8)]
    assert broker.enqueue([envelope(each, unique=each) for each in ids]) == {}
    assert broker.enqueue([envelope("t0"), envelope("new", unique="t1")]) == {"t0": "t0", "new": "t1"}
    broker.enqueue([envelope("later", delay=LONG)])
    leases = take(broker, 4) + broker.acquire(QUEUE, limit=1, wait=0, lease_for=LONG, ids=["t4"])
    assert broker.extend(leases, lease_for=LONG) == frozenset()
    assert broker.checkpoint([write(each) for each in leases]) == frozenset()
    assert broker.ack([write(leases[0])], keep_for=LONG) == frozenset()
    assert broker.ack([write(leases[1])], keep_for=0) == frozenset()
    assert broker.release([write(each) for each in leases[2:]]) == frozenset()
    assert broker.cancel(["t5"], keep_for=LONG) == ["t5"]
    assert broker.cancel(["t6"], keep_for=0) == ["t6"]
    for state in (State.SCHEDULED, State.READY, State.LEASED):
        broker.browse(QUEUE, state=state, limit=2)
    assert broker.get(ids).keys() == {"t0", "t2", "t3", "t4", "t5", "t7"}
    assert broker.purge(QUEUE) == 5


def test_each_operation_finds_its_rows_by_an_index(broker: SQLBroker) -> None:
    said = said_by(broker, lambda: works(broker))
    found = scans(broker, said)
    assert len(found) > len(said) > 15
    assert {each["Node Type"] for each in found} <= BY_INDEX


@pytest.mark.parametrize("which", ["has_old_records", "forget", "promote", "claim", "stats"])
def test_what_time_has_come_for_is_found_by_its_time(broker: SQLBroker, which: str) -> None:
    """The clock is asked once: an index that is read from end to end, with the clock asked for each row, costs as much
    as no index.
    """
    dialect, database = broker._dialect, broker._database
    calls: dict[str, Callable[[], object]] = {
        "has_old_records": lambda: database.read(dialect.has_old_records),
        "forget": lambda: database.run(dialect.forget),
        "promote": lambda: database.run(dialect.promote, QUEUE),
        "claim": lambda: take(broker),
        "stats": lambda: broker.stats(QUEUE),
    }
    by_time = [
        each
        for each in scans(broker, said_by(broker, calls[which]))
        if each.get("Index Name", "").endswith(("_timed", "_ended"))
    ]
    assert any("until" in each["Index Cond"] for each in by_time)
    assert [each["Filter"] for each in by_time if "until" in each.get("Filter", "")] == []


def planner_of(url: str) -> dict[str, str]:
    """What the planner may do on the connections of a broker, and for how long."""
    broker = SQLBroker.from_url(BrokerURL(url))
    try:
        with broker._database.engine.connect() as connection:
            names = ("enable_seqscan", "enable_bitmapscan", "jit", "statement_timeout", "application_name")
            return {name: connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names}
    finally:
        broker.close()


def test_the_planner_of_the_brokers_connections_has_no_choice(sql_url: str) -> None:
    no_choice = {
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",
        "jit": "off",
        "statement_timeout": "10s",
    }
    assert planner_of(sql_url).items() >= no_choice.items()
    # A program's own options go to the server too, and have the last word.
    own = planner_of(with_params(sql_url, options="-c application_name=shop -c jit=on"))
    assert own == {**no_choice, "jit": "on", "application_name": "shop"}


def test_through_a_pooler_no_options_are_sent(sql_url: str) -> None:
    """With PgBouncer, for which this parameter is, a connection with options is refused."""
    plain = planner_of(with_params(sql_url, prepare_threshold="off"))
    assert (plain["enable_seqscan"], plain["statement_timeout"]) == ("on", "0")
    broker = SQLBroker.from_url(BrokerURL(with_params(sql_url, prepare_threshold="off")))
    with broker._database.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        assert "options" not in driver.info.get_parameters()
    broker.close()
