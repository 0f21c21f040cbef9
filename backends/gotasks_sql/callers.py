"""Callers' connections: what a program may hand over for a task to be stored in its own transaction."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from gotasks.errors import ConfigurationError

T = TypeVar("T")

_TAKEN = "an SQLAlchemy Connection or Session, or with aenqueue their asynchronous kinds"


def here(given: object) -> object:
    """The session of this thread or task, where a registry of sessions was given; else what was given."""
    if "sqlalchemy.orm" in sys.modules:  # else it's no session, and a worker does without the ORM
        from sqlalchemy.orm import scoped_session

        if isinstance(given, scoped_session):
            return given()
    if "sqlalchemy.ext.asyncio" in sys.modules:
        from sqlalchemy.ext.asyncio import async_scoped_session

        if isinstance(given, async_scoped_session):
            return given()
    return given


def connection_of(given: object, names: frozenset[str]) -> sa.Connection:
    """The connection behind a Connection or a Session, of a dialect of one of these names.

    Raises ConfigurationError for anything else.
    """
    given = here(given)
    if "sqlalchemy.orm" in sys.modules:
        from sqlalchemy.orm import Session

        if isinstance(given, Session):
            given = given.connection()
    if not isinstance(given, sa.Connection):
        raise ConfigurationError(f"connection= takes {_TAKEN}, not {_kind(given)}")
    if given.dialect.name not in names:
        raise ConfigurationError(
            f"connection= is one to {given.dialect.name}, and this broker's tables are in {'/'.join(sorted(names))}"
        )
    if _commits_at_once(given):
        raise ConfigurationError(
            "connection= is in AUTOCOMMIT, so there is no transaction: begin one on another"
        )
    return given


def _commits_at_once(given: sa.Connection) -> bool:
    """Whether each statement on it is a transaction of its own.

    The driver is asked: of what was set when the engine was made, the connection's own options know nothing.
    """
    pooled = given.connection
    if given.dialect.name == "sqlite":
        return _never_begins(given, pooled.driver_connection)
    if callable(asked := getattr(pooled.dbapi_connection, "get_autocommit", None)):  # MySQL's
        return bool(asked())
    return getattr(pooled.dbapi_connection, "autocommit", False) is True


def _never_begins(given: sa.Connection, driver: Any) -> bool:
    """Whether SQLite's driver doesn't begin transactions, and the program doesn't either, as SQLAlchemy advises."""
    if driver.isolation_level is not None:
        return getattr(driver, "autocommit", False) is True  # from Python 3.12 on
    if given.in_transaction():
        return not driver.in_transaction
    transaction = given.begin()  # as its first statement does
    if driver.in_transaction:
        return False
    transaction.rollback()
    return True


def is_async(given: object) -> bool:
    """Whether it has to be used on its event loop."""
    return hasattr(given, "run_sync")


async def on_its_loop(given: Any, work: Callable[[object], T]) -> T:
    """`work` with the synchronous face of an AsyncConnection or AsyncSession."""
    result: T = await given.run_sync(work)
    return result


def _kind(given: object) -> str:
    return f"{type(given).__module__.partition('.')[0]}'s {type(given).__name__}"
