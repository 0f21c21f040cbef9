"""Pages of a queue cost the same, however far they are from its beginning, and whatever else is in the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from gotasks.broker import BrokerURL, State
from gotasks_sql.broker import SQLBroker
from gotasks_sql.conformance.tables import connected, schema_of
from gotasks_sql.schema import LEASED, READY, SCHEDULED
from tests.backends.contract import QUEUE, ids_of

#: Tasks of each state in the queue, and in another one before it; and how many are shown at a time.
TASKS, PAGE = 600, 10

#: Further than any lease or delay of the tests: microseconds since 1970.
LATE = 10**17

STATES = {State.SCHEDULED: SCHEDULED, State.READY: READY, State.LEASED: LEASED}


@pytest.fixture
def broker(sql_url: str) -> Iterator[SQLBroker]:
    """Tables of which no planner knows anything yet, with many tasks; some of them share their place with others."""
    broker = SQLBroker.from_url(BrokerURL(sql_url))
    broker.migrate()
    tasks = schema_of(sql_url).tasks
    rows = [
        {
            "id": f"{queue}-{state.value}-{(number * 7) % TASKS:03}",
            "queue": queue,
            "state": value,
            "rank": -(number % 3),
            "place": number // 2,
            "until": None if state is State.READY else LATE + number // 4,
            "body": b"body",
        }
        for queue in ("another", QUEUE)
        for state, value in STATES.items()
        for number in range(TASKS)
    ]
    with connected(sql_url) as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"ALTER TABLE {tasks.name} SET (autovacuum_enabled = off)")
        connection.execute(sa.insert(tasks), rows)
    yield broker
    broker.close()


def pages(broker: SQLBroker, state: State) -> Iterator[list[str]]:
    """The ids of each page, from the first on, as a program asks for them; not for many more than there should be."""
    after = None
    for _ in range(2 * TASKS // PAGE):
        shown = ids_of(broker.browse(QUEUE, state=state, limit=PAGE, after=after))
        if not shown:
            return
        yield shown
        after = shown[-1]


@pytest.mark.parametrize("state", STATES)
def test_each_task_is_on_one_page_in_its_order(broker: SQLBroker, state: State) -> None:
    whole = ids_of(broker.browse(QUEUE, state=state, limit=2 * TASKS))
    found = list(pages(broker, state))
    assert [task_id for page in found for task_id in page] == whole
    assert len(set(whole)) == TASKS
    assert {len(each) for each in found} == {PAGE}


# -- what a page costs --------------------------------------------------------------------------------


def last_said(broker: SQLBroker, work: Callable[[], object]) -> tuple[str, Any]:
    """The last statement that `work` says to the server, and its parameters."""
    said: list[tuple[str, Any]] = []

    def listen(_connection: object, _cursor: object, statement: str, params: Any, *_: object) -> None:
        said.append((statement, params))

    engine = broker._database.engine
    sa.event.listen(engine, "before_cursor_execute", listen)
    work()
    sa.event.remove(engine, "before_cursor_execute", listen)
    return said[-1]


def read_by(broker: SQLBroker, work: Callable[[], object]) -> int:
    """How many rows, or entries of an index, the database reads for the page; of SQLite, how many steps it takes."""
    statement, params = last_said(broker, work)
    with broker._database.engine.connect() as connection:
        return COUNTS[connection.dialect.name](connection, statement, params)


def _by_postgresql(connection: sa.Connection, statement: str, params: Any) -> int:
    def walk(node: dict[str, Any]) -> int:
        here = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) if "Relation Name" in node else 0
        return int(here) + sum(walk(each) for each in node.get("Plans", ()))

    plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", params).scalar_one()
    return walk(plan[0]["Plan"])


def _by_mysql(connection: sa.Connection, statement: str, params: Any) -> int:
    """What the server hands over, and on MariaDB what the storage engine leaves out before."""
    connection.exec_driver_sql("FLUSH STATUS")
    connection.exec_driver_sql(statement, params).all()
    counts = {
        name: int(value)
        for name, value in connection.exec_driver_sql("SHOW SESSION STATUS").all()
        if value.isdigit()
    }
    read = sum(count for name, count in counts.items() if name.startswith("Handler_read"))
    return read + counts.get("Handler_icp_attempts", 0) - counts.get("Handler_icp_match", 0)


def _by_sqlite(connection: sa.Connection, statement: str, params: Any) -> int:
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    driver = connection.connection.driver_connection
    assert driver is not None
    driver.set_progress_handler(step, 1)
    connection.exec_driver_sql(statement, params).all()
    driver.set_progress_handler(None, 1)
    return steps


COUNTS = {"postgresql": _by_postgresql, "mysql": _by_mysql, "sqlite": _by_sqlite}


@pytest.mark.parametrize("state", STATES)
def test_a_page_costs_the_same_wherever_it_is(broker: SQLBroker, state: State) -> None:
    whole = ids_of(broker.browse(QUEUE, state=state, limit=TASKS))
    costs = [
        read_by(broker, lambda: broker.browse(QUEUE, state=state, limit=PAGE, after=after))  # noqa: B023
        for after in (None, whole[0], whole[TASKS // 10], whole[TASKS // 2], whole[TASKS - 2 * PAGE])
    ]
    # One that read all that is before or behind it, or in the other queue, would cost ten times as much in the middle.
    assert max(costs) < 3 * min(costs), costs


@pytest.mark.parametrize("sql_url", ["mariadb"], indirect=True)  # MySQL counts in another way
@pytest.mark.parametrize("state", STATES)
def test_a_page_is_a_range_of_the_index_in_whose_order_it_is(broker: SQLBroker, state: State) -> None:
    whole = ids_of(broker.browse(QUEUE, state=state, limit=TASKS))
    index = f"{broker._dialect.tasks.name}_{'ready' if state is State.READY else 'timed'}"
    rows = []
    for after in (whole[0], whole[TASKS // 2], whole[-2 * PAGE]):
        statement, params = last_said(
            broker,
            lambda: broker.browse(QUEUE, state=state, limit=PAGE, after=after),  # noqa: B023
        )
        with broker._database.engine.connect() as connection:
            (plan,) = connection.exec_driver_sql(f"EXPLAIN {statement}", params).mappings().all()
        assert (plan["type"], plan["key"]) == ("range", index)
        assert "filesort" not in plan["Extra"]
        rows.append(int(plan["rows"]))
    assert rows[-1] < TASKS / 4  # it begins near the end
