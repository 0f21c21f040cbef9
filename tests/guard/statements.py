"""Statements: how many a process has sent to its databases, and in how many transactions."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from typing_extensions import Self


class Statements:
    """Counts within its `with` block, in which the connections that shall count are made."""

    def __init__(self) -> None:
        self.statements = 0
        self.transactions = 0
        self._listeners = (
            ("connect", self._connect),
            ("before_cursor_execute", self._execute),
            ("commit", self._commit),
        )

    def __enter__(self) -> Self:
        for name, listener in self._listeners:
            sa.event.listen(sa.Engine, name, listener)
        return self

    def __exit__(self, *_exc: object) -> None:
        for name, listener in self._listeners:
            sa.event.remove(sa.Engine, name, listener)

    def _connect(self, connection: object, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.set_trace_callback(self._trace)

    def _trace(self, statement: str) -> None:
        """SQLite runs a statement: whoever asked for it, each row of `executemany` by itself."""
        self.statements += 1
        self.transactions += statement == "COMMIT"

    def _execute(self, connection: sa.Connection, *_: object) -> None:
        """SQLAlchemy hands a statement to a driver. One that isn't in a transaction is one by itself."""
        if not _embedded(connection):
            self.statements += 1
            self.transactions += _autocommits(connection)

    def _commit(self, connection: sa.Connection) -> None:
        if not _embedded(connection):
            self.transactions += not _autocommits(connection)


def _embedded(connection: sa.Connection) -> bool:
    return connection.dialect.name == "sqlite"


def _autocommits(connection: sa.Connection) -> bool:
    driver: Any = connection.connection.dbapi_connection
    return bool(driver.autocommit if connection.dialect.name == "postgresql" else driver.get_autocommit())
