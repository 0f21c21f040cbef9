"""Watcher: sees that another process has written into the SQLite file, and wakes who waits here."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable

from gotasks_sql import forks
from gotasks_sql.wakeups import Wakeups

#: A waiting worker asks so often at first, and so often in the end: each time costs it 0.2 ms of CPU. Seconds.
_EVERY, _IDLE = 0.01, 0.05

#: So much longer is each pause than the one before; within half a second it is the longest.
_SLOWER = 1.1


class WatchingWakeups(Wakeups):
    """A connection of its own is asked for the number that changes with each commit of another one."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__()
        self._connect = connect
        # SQLite dies of a connection that is closed while another thread uses it.
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._seen = threading.local()

    def ticket(self, queue: str) -> int:
        self._seen.version = self._version()
        return super().ticket(queue)

    def wait(self, queue: str, ticket: int, timeout: float) -> None:
        end = time.monotonic() + timeout
        every = self._pauses.get(queue, _EVERY)
        while (left := end - time.monotonic()) > 0:
            self._wait(queue, ticket, min(every, left))
            if super().ticket(queue) != ticket or self._version() != self._seen.version:
                return
            every = min(every * _SLOWER, _IDLE)
        self._pauses[queue] = every

    def _version(self) -> object:
        with self._lock, forks.held_off():
            if self._closed:
                return object()
            try:
                if self._connection is None:
                    self._connection = self._connect()
                return self._connection.execute("PRAGMA data_version").fetchone()
            except sqlite3.Error:
                return object()  # differs from any other: who waits looks for himself

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._connection.close()
        super().close()
