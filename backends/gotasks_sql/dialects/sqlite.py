"""SQLite: one file, one writer at a time, any number of readers beside it (WAL)."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from msgspec import structs
from sqlalchemy.dialects import sqlite

from gotasks.errors import ConfigurationError
from gotasks_sql.address import Address
from gotasks_sql.dialects.base import Dialect
from gotasks_sql.dialects.sqlite_statements import CLOCK, SQLiteStatements
from gotasks_sql.operations import released
from gotasks_sql.rows import Claim, Held, Look, Taken
from gotasks_sql.wakeups import Wakeups
from gotasks_sql.watcher import WatchingWakeups

#: Its clock has milliseconds; a lease is longer by one, to end no earlier than its holder thinks. Microseconds.
_TICK = 1000

#: Who doesn't get the lock within this asks again, as long as the call has time. Seconds.
_BUSY_TIMEOUT = 1


class SQLite(Dialect):
    """Writers of this process queue up here, in order; those of other processes at the file's lock."""

    names = frozenset({"sqlite"})
    excludes = True
    now = sa.literal_column(CLOCK, sa.BigInteger)
    # SQLite before 3.32 takes 999 parameters.
    limits = structs.replace(Dialect.limits, max_batch=500, recovery=0.1)

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._writing = threading.Lock()
        self._sql = SQLiteStatements(self.tasks.name, self.schema.version.name)

    # -- connections ------------------------------------------------------------------------------------

    def check_place(self, *, making: bool) -> None:
        file = Path(str(self.address.url.database))
        if not file.parent.is_dir():
            raise ConfigurationError(f"{self.address.shown}: there is no folder {file.parent}: make it first")
        if not making and not file.exists():  # connecting would make it
            raise ConfigurationError(
                f"{self.address.shown}: there is no such file: run `gotasks migrate URL`"
            )
        # No look into the file: to close it would end all locks that this process has on it, those of SQLite's
        # connections too, and the next process would take it for unused. (https://www.sqlite.org/howtocorrupt.html)

    def create_engine(self, *, patient: bool = False) -> sa.Engine:
        engine = sa.create_engine(
            self.address.url,
            **self.pool(),
            pool_use_lifo=True,  # what a connection has in its cache holds until another one writes
            connect_args={"check_same_thread": False, "timeout": 60 if patient else _BUSY_TIMEOUT},
        )

        @sa.event.listens_for(engine, "connect")
        def set_up(connection: Any, _record: object) -> None:
            connection.isolation_level = None  # BEGIN is said below, not guessed by the driver
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self.address.synchronous}")

        @sa.event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            reads = connection.get_execution_options().get("gotasks_reads")
            # At once the writer's lock, not at the first write: a reader that becomes a writer may have to give up.
            connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

        return engine

    @contextmanager
    def transaction(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        if not self._writing.acquire(timeout=self.address.timeout):
            locked = sqlite3.OperationalError("database is locked: those before us don't get their turn")
            raise sa.exc.OperationalError(None, None, locked)
        try:
            with engine.begin() as connection:
                yield connection
        finally:
            self._writing.release()

    @contextmanager
    def reading(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        with engine.connect() as connection, connection.execution_options(gotasks_reads=True).begin():
            yield connection

    def migrating(self, engine: sa.Engine) -> Any:
        return self.transaction(engine)

    def after_fork(self) -> None:
        self._writing = threading.Lock()

    def wakeups(self, engine: Callable[[], sa.Engine]) -> Wakeups:
        def connect() -> sqlite3.Connection:
            file = engine().url.database
            assert file is not None
            return sqlite3.connect(file, isolation_level=None, check_same_thread=False)

        return WatchingWakeups(connect)

    # -- operations -------------------------------------------------------------------------------------

    def insert_new(self) -> sa.Insert:
        return sqlite.insert(self.tasks).on_conflict_do_nothing()

    def places(self, connection: sa.Connection, now: int, count: int) -> int:
        # Not by `_cursor`: to enqueue, the connection may be a caller's, of another driver.
        connection.exec_driver_sql(self._sql.forward, {"count": count})
        return int(connection.exec_driver_sql(self._sql.last_place).scalar_one()) - count + 1

    def look(self, connection: sa.Connection, queue: str) -> Look:
        with _cursor(connection) as cursor:
            now, due, over, ready = cursor.execute(self._sql.look, {"queue": queue}).fetchone()
        return Look.of(now, due, over, ready=bool(ready))

    def claim(self, connection: sa.Connection, queue: str, *, limit: int, lease: int, token: int) -> Claim:
        seen = self.look(connection, queue)
        if seen.due:
            self.promote(connection, queue)
        params = {"queue": queue, "limit": limit}
        with _cursor(connection) as cursor:
            rows = cursor.execute(self._sql.over, params).fetchall() if seen.over else []
            rows += cursor.execute(self._sql.ready, params).fetchall()
            taken = [Taken(*row) for row in rows]
            # Stable: within a rank what a lease left behind goes first.
            taken.sort(key=lambda each: each.rank)
            del taken[limit:]
            ours = {"token": token, "until": seen.now + lease + _TICK}
            cursor.executemany(
                self._sql.take, [{**ours, "id": each.id, "deaths": each.deaths} for each in taken]
            )
        return Claim(taken, seen.next_in)

    def extend(self, connection: sa.Connection, helds: Sequence[Held], *, lease: int) -> set[str]:
        longer = lease + _TICK
        return self._each(
            connection, self._sql.extend, ({**each._asdict(), "lease": longer} for each in helds)
        )

    def checkpoint(self, connection: sa.Connection, helds: Sequence[Held]) -> set[str]:
        return self._each(connection, self._sql.checkpoint, (each._asdict() for each in helds))

    def ack(self, connection: sa.Connection, helds: Sequence[Held], *, keep: int) -> set[str]:
        statement = self._sql.ack if keep > 0 else self._sql.ack_and_remove
        return self._each(connection, statement, ({**each._asdict(), "keep": keep} for each in helds))

    def release(self, connection: sa.Connection, helds: Sequence[Held], *, queue: str) -> set[str]:
        now = self.clock(connection)
        rows = released(helds, queue, now, self.places(connection, now, len(helds)))
        return self._each(
            connection,
            self._sql.release,
            ({**each._asdict(), **row} for each, row in zip(helds, rows, strict=True)),
        )

    def _each(self, connection: sa.Connection, statement: str, rows: Iterable[Mapping[str, Any]]) -> set[str]:
        """Run it for each, and return the ids for which it found a row."""
        with _cursor(connection) as cursor:
            return {row["id"] for row in rows if cursor.execute(statement, row).rowcount}

    # -- errors, by their text: Python 3.10 doesn't tell SQLite's codes ------------------------------------

    def is_repeatable(self, error: sa.exc.SQLAlchemyError) -> bool:
        return "is locked" in str(_reason(error))

    def is_full(self, error: sa.exc.SQLAlchemyError) -> bool:
        return "disk is full" in str(_reason(error))

    def advice(self, error: sa.exc.SQLAlchemyError) -> str | None:
        return "name another file" if "file is not a database" in str(_reason(error)) else None

    def is_forbidden(self, error: BaseException | None) -> bool:
        return "readonly database" in str(error)


@contextmanager
def _cursor(connection: sa.Connection) -> Iterator[sqlite3.Cursor]:
    """A cursor of the driver, on a connection of ours; its errors are SQLAlchemy's."""
    raw: Any = connection.connection.dbapi_connection
    try:
        with closing(raw.cursor()) as cursor:
            yield cursor
    except sqlite3.Error as error:
        raise sa.exc.DBAPIError.instance(None, None, error, sqlite3.Error, hide_parameters=True) from error


def _reason(error: sa.exc.SQLAlchemyError) -> object:
    return error.orig if isinstance(error, sa.exc.DBAPIError) else ""


DIALECT = SQLite
