"""Threads that wait for tasks of a database: what they cost, how they end, and how long others wait for their turn."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from gotasks.broker import BrokerURL
from gotasks.discovery import open_broker
from gotasks.errors import BrokerUnavailable, ConfigurationError
from gotasks_sql.broker import SQLBroker
from gotasks_sql.conformance.tables import connected, make, schema_of, with_params
from gotasks_sql.schema import LEASED, SCHEDULED
from tests.backends.contract import QUEUE, envelope, put, stats, take, take_one
from tests.conftest import DATABASE_SERVERS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sql(sql_url: str) -> Iterator[SQLBroker]:
    """An empty broker, on each database in turn."""
    broker = SQLBroker.from_url(BrokerURL(sql_url))
    yield broker
    broker.close()


# -- what waiting costs -----------------------------------------------------------------------------


@pytest.mark.parametrize("sql_url", DATABASE_SERVERS, indirect=True)  # SQLite locks no rows
@pytest.mark.parametrize("state", [LEASED, SCHEDULED], ids=["over", "due"])
def test_a_task_that_somebody_else_has_locked_isnt_asked_for_all_the_time(
    sql_url: str, sql: SQLBroker, state: int
) -> None:
    """Its time has come, so there is no other time to wait for."""
    make(sql_url)
    tasks = schema_of(sql_url).tasks
    row = {"id": "a", "queue": QUEUE, "rank": 0, "place": 0, "body": b"body", "state": state, "until": 1}
    with connected(sql_url) as connection:
        connection.execute(sa.insert(tasks).values(row))
    asked: list[str] = []
    sql.stats(QUEUE)
    sa.event.listen(sql._database.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    with connected(sql_url) as theirs:
        theirs.execute(sa.select(tasks.c.id).where(tasks.c.id == "a").with_for_update())
        assert take(sql, wait=1.0) == []
        # After 5 ms, 10 ms, 20 ms ...: nine times, with up to six statements each.
        assert 2 < len(asked) <= 54
    assert take_one(sql, wait=10.0).envelope.id == "a"


def test_threads_that_end_leave_nothing_open(sql: SQLBroker) -> None:
    def ask() -> None:
        thread = threading.Thread(target=lambda: take(sql))
        thread.start()
        thread.join()

    def files() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    ask()
    before = files()
    for _ in range(30):
        ask()
    assert files() <= before + 5


# -- how it ends ------------------------------------------------------------------------------------

#: Closes brokers on which threads wait. Each thread has asked once before; all end by themselves.
CLOSES = """
import sys, threading
from gotasks.discovery import open_broker
from gotasks.errors import BrokerClosed
THREADS = 8
for _ in range(int(sys.argv[2])):
    broker = open_broker(sys.argv[1])
    there = threading.Barrier(THREADS + 1)
    def wait():
        broker.acquire("orders", limit=1, wait=0.0, lease_for=1.0)
        there.wait(20)
        try:
            while True:
                broker.acquire("orders", limit=1, wait=0.02, lease_for=1.0)
        except BrokerClosed:
            pass
    threads = [threading.Thread(target=wait) for _ in range(THREADS)]
    for each in threads:
        each.start()
    there.wait(20)
    broker.close()
    for each in threads:
        each.join(20)
        assert not each.is_alive()
print("closed")
"""


def test_a_close_beside_waiting_threads_ends_them_and_not_the_process(sql_url: str) -> None:
    rounds = (
        "40" if sql_url.startswith("sqlite") else "2"
    )  # its library is in this process, and takes others down
    words = [sys.executable, "-X", "faulthandler", "-c", CLOSES, sql_url, rounds]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("closed\n", "", 0)


# -- a first call that waits --------------------------------------------------------------------------


@pytest.mark.parametrize("sql_url", ["sqlite"], indirect=True)
def test_a_worker_on_a_file_that_cant_be_is_told_what_to_do(sql_url: str, tmp_path: Path) -> None:
    """In the broker's words, whichever call is the first; and no file is made where none should be."""
    text = tmp_path / "text.db"
    text.write_text("no database" * 100)
    places = {
        f"sqlite:///{tmp_path}/no/such/folder/tasks.db": "there is no folder",
        with_params(sql_url, migrate="never"): "there is no such file",
        f"sqlite:///{text}": "is not a database",
    }
    for url, says in places.items():
        broker = open_broker(url)
        with pytest.raises(ConfigurationError, match=says):
            take(broker)
        broker.close()
    assert [each.name for each in tmp_path.iterdir()] == ["text.db"]


# -- others' turns ------------------------------------------------------------------------------------


def test_the_same_task_twice_in_one_moment_is_there_the_second_time(
    sql: SQLBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that stands still, as SQLite's does for a millisecond."""
    moment = sql._database.read(sql._dialect.clock)
    monkeypatch.setattr(sql._dialect, "clock", lambda _connection: moment)
    for delay in (0.0, 30.0):
        one, both = envelope(delay=delay), envelope(delay=delay)
        assert [sql.enqueue([one]), sql.enqueue([one])] == [{}, {one.id: one.id}]
        assert sql.enqueue([both, both]) == {both.id: both.id}
    assert sql.stats(QUEUE) == stats(ready=2, scheduled=2)


@pytest.mark.parametrize("sql_url", ["sqlite"], indirect=True)
def test_many_threads_are_told_in_time_that_the_file_is_locked(sql_url: str) -> None:
    """Each waits for those before it and for the file: for both together as long as the URL says, and one try."""
    threads = 12
    broker = open_broker(with_params(sql_url, timeout="0.3"))
    put(broker)
    there = threading.Barrier(threads)

    def told_after() -> float:
        there.wait(20)
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="locked"):
            put(broker)
        return time.monotonic() - began

    with connected(sql_url) as theirs, ThreadPoolExecutor(threads) as pool:
        theirs.exec_driver_sql("UPDATE gotasks_schema SET version = version")
        longest = max(each.result(50) for each in [pool.submit(told_after) for _ in range(threads)])
    assert longest < threads / 2  # one after another each would take a second
    put(broker)
    broker.close()
