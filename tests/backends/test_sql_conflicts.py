"""Many at once on the same rows of a database: nobody's call fails for it, and nothing is lost or done twice."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from gotasks.broker import Broker, BrokerURL, Lease, Record, State
from gotasks.discovery import open_broker
from gotasks.errors import BrokerUnavailable
from gotasks_sql.address import Address
from gotasks_sql.conformance.tables import connected, make, schema_of, with_params
from gotasks_sql.dialects import dialect_of
from gotasks_sql.schema import DONE
from tests.backends.contract import LONG, QUEUE, envelope, eventually, ids_of, put, stats, take, write
from tests.backends.sql_locks import watched
from tests.conftest import DATABASE_SERVERS

ROOT = Path(__file__).parents[2]

PROCESSES = 8
TASKS = 20_000


@pytest.mark.timeout(400)
def test_eight_processes_drain_a_queue(sql_url: str, figures: Callable[[str], None]) -> None:
    broker = open_broker(sql_url)
    began = time.monotonic()
    sent = [each for _ in range(TASKS // 1000) for each in put(broker, 1000)]
    enqueued = time.monotonic() - began
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.backends.sql_drain", sql_url, QUEUE],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    for each in processes:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    began = time.monotonic()
    for each in processes:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    with ThreadPoolExecutor(PROCESSES) as pool:
        reports = [
            json.loads(out) for out, _ in pool.map(lambda each: each.communicate(timeout=300), processes)
        ]
    drained = time.monotonic() - began

    acked = Counter(task_id for each in reports for task_id in each["acked"])
    errors = [text for each in reports for text in each["errors"]]
    figures(
        f"{TASKS} tasks, enqueued in {enqueued:.1f} s ({TASKS / enqueued:,.0f}/s), drained by {PROCESSES} processes "
        f"of 4 threads in {drained:.1f} s ({TASKS / drained:,.0f}/s), {len(errors)} errors"
    )
    assert errors == []
    assert acked == Counter(sent)
    assert broker.stats(QUEUE) == stats()
    broker.close()


# -- in opposite orders ---------------------------------------------------------------------------

IDS = [f"t{number:03}" for number in range(60)]
ROUNDS = 25


@pytest.fixture
def two(sql_url: str) -> Iterator[tuple[Broker, Broker]]:
    """Two clients of one place."""
    brokers = open_broker(sql_url), open_broker(sql_url)
    yield brokers
    for each in brokers:
        each.close()


def at_once(*calls: Callable[[], object]) -> list[object]:
    """What they return, each on a thread of its own."""
    barrier = threading.Barrier(len(calls))

    def call(each: Callable[[], object]) -> object:
        barrier.wait(20)
        return each()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


def test_the_same_ids_in_opposite_orders_are_stored_once(two: tuple[Broker, Broker]) -> None:
    one, other = two
    one.stats(QUEUE)
    for number in range(ROUNDS):
        forth = [envelope(f"{each}-{number}", b"one") for each in IDS]
        back = [envelope(f"{each}-{number}", b"other") for each in reversed(IDS)]
        there = at_once(lambda: one.enqueue(forth), lambda: other.enqueue(back))  # noqa: B023
        # Every id is refused to exactly one of them.
        refused = [task_id for each in there for task_id in (each if isinstance(each, dict) else ())]
        assert sorted(refused) == sorted(each.id for each in forth)
    assert one.stats(QUEUE) == stats(ready=len(IDS) * ROUNDS)


def test_writes_of_the_same_rows_in_opposite_orders(two: tuple[Broker, Broker]) -> None:
    one, other = two
    one.enqueue([envelope(each) for each in IDS])
    leases = take(one, len(IDS))
    for number in range(ROUNDS):
        seq = number + 1
        assert (
            at_once(
                lambda: one.checkpoint([write(lease, seq=seq) for lease in leases]),  # noqa: B023
                lambda: other.checkpoint([write(lease, seq=seq) for lease in reversed(leases)]),  # noqa: B023
                lambda: one.extend(leases, lease_for=LONG),
                lambda: other.extend(leases[::-1], lease_for=LONG),
            )
            == [frozenset()] * 4
        )
    ended = at_once(
        lambda: one.cancel(IDS, keep_for=LONG),
        lambda: other.cancel(IDS[::-1], keep_for=LONG),
    )
    assert sorted(each for ids in ended if isinstance(ids, list) for each in ids) == IDS


# -- a deadlock -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sql_url", DATABASE_SERVERS, indirect=True)  # SQLite has one writer, so none
@pytest.mark.parametrize("operation", ["checkpoint", "extend", "ack", "release"])
def test_a_call_that_is_given_up_in_a_deadlock_is_repeated(sql_url: str, operation: str) -> None:
    """A program's transaction locks two rows in another order than the broker, so that one of them must give up."""
    broker = open_broker(sql_url)
    table = schema_of(sql_url).tasks
    put(broker, 500, queue="ballast")
    calls: dict[str, Callable[[list[Lease]], object]] = {
        "checkpoint": lambda leases: broker.checkpoint([write(each) for each in leases]),
        "extend": lambda leases: broker.extend(leases, lease_for=LONG),
        "ack": lambda leases: broker.ack([write(each) for each in leases], keep_for=LONG),
        "release": lambda leases: broker.release([write(each) for each in leases]),
    }

    def given_up(attempt: int) -> bool:
        """Whether it was the broker's call that had to give up, and not the program's."""
        first, second = f"a{attempt}", f"b{attempt}"
        broker.enqueue([envelope(first), envelope(second)])
        leases = take(broker, 2)
        assert ids_of(leases) == [first, second]
        with ThreadPoolExecutor(1) as pool, connected(sql_url) as theirs, watched(sql_url) as waits:

            def lock(task_id: str) -> None:
                theirs.execute(sa.select(table.c.id).where(table.c.id == task_id).with_for_update())

            # What has changed more is kept by InnoDB.
            theirs.execute(sa.update(table).where(table.c.queue == "ballast").values(deaths=attempt + 7))
            lock(second)
            written = pool.submit(calls[operation], leases)
            eventually(waits, what="the broker's call waits for the second")
            try:
                lock(first)  # which the broker's call holds: one of them has to give up
            except sa.exc.OperationalError:
                theirs.rollback()
                given_up = False
            else:
                assert not written.done()
                theirs.commit()
                given_up = True
            assert written.result(30) == frozenset()
        broker.ack([write(each) for each in take(broker, 2)], keep_for=0)  # those that were released
        return given_up

    # PostgreSQL gives up who has waited for a second when there is a deadlock, so not the broker's call if the program
    # takes longer than that to get there.
    assert any(given_up(attempt) for attempt in range(5))
    broker.close()


# -- a record whose time is over --------------------------------------------------------------------


@pytest.mark.parametrize("sql_url", DATABASE_SERVERS, indirect=True)  # SQLite has one writer
def test_a_task_that_is_stored_where_a_record_was_over_isnt_removed_with_that(sql_url: str) -> None:
    """Between the look at a record and its removal somebody else stores the id anew, and a worker takes it."""
    make(sql_url)
    dialect, other = dialect_of(Address.of(BrokerURL(sql_url))), open_broker(sql_url)
    row = {"id": "a", "queue": QUEUE, "state": DONE, "rank": 0, "place": 0, "until": 1, "body": b"over"}
    leases: list[Lease] = []

    def meanwhile(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("DELETE"):
            assert other.enqueue([envelope("a", b"anew")]) == {}
            leases.extend(take(other))

    with connected(sql_url) as connection:
        connection.execute(sa.insert(dialect.tasks).values(row))
    with connected(sql_url) as connection:
        sa.event.listen(connection, "before_cursor_execute", meanwhile)
        assert dialect.known(connection, [envelope("a")]) == {}
    assert ids_of(leases) == ["a"]
    assert other.get(["a"]) == {"a": Record(id="a", queue=QUEUE, state=State.LEASED, body=b"anew")}
    assert other.checkpoint([write(leases[0])]) == frozenset()
    other.close()


# -- a writer that stays ----------------------------------------------------------------------------


@pytest.mark.parametrize("sql_url", ["sqlite"], indirect=True)
def test_the_files_lock_is_waited_for_as_long_as_the_url_says(sql_url: str) -> None:
    broker, hasty = open_broker(sql_url), open_broker(with_params(sql_url, timeout="0.3"))
    put(broker)
    with ThreadPoolExecutor(1) as pool:
        with connected(sql_url) as theirs:
            theirs.exec_driver_sql("UPDATE gotasks_schema SET version = version")
            waiting = pool.submit(put, broker)
            with pytest.raises(BrokerUnavailable, match="locked"):
                put(hasty)
            assert hasty.stats(QUEUE) == stats(ready=1)  # readers aren't in the way
            assert not waiting.done()
        waiting.result(20)
    assert broker.stats(QUEUE) == stats(ready=2)
    broker.close()
    hasty.close()
