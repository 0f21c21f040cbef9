"""Listener: a connection that hears PostgreSQL's NOTIFY and wakes who waits here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql

from gotasks.errors import BrokerClosed
from gotasks_sql.wakeups import Wakeups

logger = logging.getLogger("gotasks")

#: Seconds for which it listens before it looks whether it should end, and between two attempts to connect.
_TURN, _PAUSE = 1.0, 1.0


class ListeningWakeups(Wakeups):
    """While the listener is connected, what others enqueue wakes a worker at once. It connects at the first wait."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], channel: str) -> None:
        super().__init__()
        self._connect = connect
        self._channel = channel
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def wait(self, queue: str, ticket: int, timeout: float) -> None:
        with self._start:
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(target=self._listen, name="gotasks-listener", daemon=True)
                self._thread.start()
        super().wait(queue, ticket, timeout)

    def close(self) -> None:
        """End the listener."""
        self._ended.set()
        self.wake()

    def _listen(self) -> None:
        told = False
        while not self._ended.is_set():
            try:
                with self._connect() as connection:
                    connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
                    self.wake()  # what came before we listened
                    told = False
                    self._hear(connection)
            except BrokerClosed:
                return
            except (psycopg.Error, sa.exc.SQLAlchemyError) as error:
                if not told and not self._ended.is_set():
                    logger.info(
                        "PostgreSQL: no wake-ups for now, queues are polled (%s)", type(error).__name__
                    )
                    told = True
                self._ended.wait(_PAUSE)

    def _hear(self, connection: psycopg.Connection[Any]) -> None:
        while not self._ended.is_set():
            for notify in connection.notifies(timeout=_TURN):
                self.wake(notify.payload)
                if self._ended.is_set():
                    return
