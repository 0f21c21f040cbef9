"""The watcher of a SQLite file: its one connection is closed by nobody while somebody else uses it."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gotasks_sql.watcher import WatchingWakeups

#: So long a call gives a close the time to come in between, which it mustn't. Seconds.
_CHANCE = 0.3


class Slow(sqlite3.Connection):
    """Each question lasts; SQLite itself would end the process where this notes that it was closed meanwhile."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked, self.closed = threading.Event(), threading.Event()
        self.closed_beside = False

    def execute(self, *args: Any) -> sqlite3.Cursor:
        self.asked.set()
        self.closed_beside |= self.closed.wait(_CHANCE)
        return super().execute(*args)

    def close(self) -> None:
        self.closed.set()
        super().close()


def test_a_close_waits_until_nobody_asks(tmp_path: Path) -> None:
    made: list[Slow] = []
    there = threading.Event()

    def connect() -> sqlite3.Connection:
        made.append(sqlite3.connect(tmp_path / "tasks.db", check_same_thread=False, factory=Slow))
        there.set()
        return made[-1]

    wakeups = WatchingWakeups(connect)
    with ThreadPoolExecutor(1) as pool:
        ticket = pool.submit(wakeups.ticket, "orders")
        assert there.wait(10)
        assert made[0].asked.wait(10)
        wakeups.close()
        assert made[0].closed.is_set()
        ticket.result(10)
    assert not made[0].closed_beside


def test_what_is_closed_connects_no_more(tmp_path: Path) -> None:
    made: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        made.append(sqlite3.connect(tmp_path / "tasks.db"))
        return made[-1]

    wakeups = WatchingWakeups(connect)
    wakeups.close()
    wakeups.wait("orders", wakeups.ticket("orders"), 5.0)  # for nothing: who waits looks for himself
    assert made == []


class Counting(sqlite3.Connection):
    """Knows how often it was asked."""

    count = 0

    def execute(self, *args: Any) -> sqlite3.Cursor:
        self.count += 1
        return super().execute(*args)


def test_who_has_waited_in_vain_asks_less_often_until_there_is_something(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "tasks.db", check_same_thread=False, factory=Counting)
    wakeups = WatchingWakeups(lambda: connection)
    waited, count = 0.6, {}
    for turn in ("first", "idle", "busy"):
        before = connection.count
        wakeups.wait("orders", wakeups.ticket("orders"), waited)
        count[turn] = connection.count - before
        if turn == "idle":
            wakeups.found("orders", something=True)
    wakeups.close()
    assert count["idle"] <= waited / 0.05 + 2
    assert min(count["first"], count["busy"]) > 0
    assert wakeups._pauses == {"orders": 0.05}
