"""Database: the connections to one database, and what of its errors is repeated here, told, or left to the caller."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from gotasks.errors import BrokerClosed, BrokerUnavailable, ConfigurationError, Rejected
from gotasks_sql import callers, forks, migrations
from gotasks_sql.address import Address
from gotasks_sql.dialects.base import Dialect

T = TypeVar("T")
P = ParamSpec("P")


class Database:
    """Runs transactions, each on a connection of a pool. Thread-safe; connects at the first call.

    The first one also looks at the schema: an empty place gets its tables (unless `?migrate=never`), and one of
    another version is refused with what to do.
    """

    def __init__(self, address: Address, dialect: Dialect) -> None:
        self._address = address
        self._dialect = dialect
        self._lock = threading.Lock()
        self._engine: sa.Engine | None = None
        self._checked = False
        self._closed = False
        self._abandoned: list[sa.Engine | None] = []

    # -- connections --------------------------------------------------------------------------------

    @property
    def engine(self) -> sa.Engine:
        """The engine; made at the first call. Raises BrokerClosed."""
        with self._lock:
            if self._closed:
                raise BrokerClosed("the SQL broker is closed")
            if self._engine is None:
                self._engine = self._dialect.create_engine()
            return self._engine

    def close(self) -> None:
        """Let go of all connections. Idempotent."""
        with self._lock:
            self._closed = True
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def after_fork(self) -> None:
        """In the child: the parent's connections stay open and untouched, and never end with an object of ours."""
        self._abandoned.append(self._engine)
        self._engine = None
        self._lock = threading.Lock()
        self._dialect.after_fork()

    # -- work ---------------------------------------------------------------------------------------

    def run(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(connection, …)` in a transaction, again where the database gave it up to let another one through.

        Raises BrokerUnavailable, BrokerClosed, ConfigurationError.
        """
        return self._when_ready(
            self._dialect.transaction, lambda connection: work(connection, *args, **kwargs)
        )

    def read(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, for what only reads, and sees one state of the database."""
        return self._when_ready(self._dialect.reading, lambda connection: work(connection, *args, **kwargs))

    def at_once(
        self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `run`, on the shortest way."""
        return self._when_ready(self._dialect.at_once, lambda connection: work(connection, *args, **kwargs))

    def attempt(self, work: Callable[[sa.Connection], T]) -> T:
        """As `run`, but once: raises BrokerUnavailable where others are in the way."""
        return self._when_ready(self._dialect.transaction, work, once=True)

    def store(self, work: Callable[[sa.Connection], T], ids: Collection[str]) -> T:
        """As `at_once`; raises Rejected with `ids` if there is no room for what it would store."""
        return self._when_ready(self._dialect.at_once, work, ids=ids)

    def connection_of(self, given: object) -> sa.Connection:
        """The caller's connection behind a Connection or Session. Raises ConfigurationError, BrokerUnavailable."""
        if self._closed:
            raise BrokerClosed("the SQL broker is closed")
        with self._telling():
            return callers.connection_of(given, self._dialect.names)

    def store_on(self, theirs: sa.Connection, work: Callable[[sa.Connection], T], ids: Collection[str]) -> T:
        """As `store`, on a caller's connection, and once: only the caller can repeat that transaction."""
        with self._telling(ids), forks.held_off():
            return work(theirs)

    def ready(self) -> None:
        """Look at the schema, once. Raises ConfigurationError, with what to do."""
        if self._checked:
            return
        self._dialect.check_place(making=self._address.migrate)
        schema = self._dialect.schema
        with self._telling():
            found = self._repeat(
                self._dialect.reading, lambda connection: migrations.version_of(connection, schema)
            )
        if found is None and self._address.migrate:
            self.migrate()
        else:
            migrations.check(found, self._address.shown)
        self._checked = True

    def ready_on(self, theirs: sa.Connection) -> bool:
        """As `ready`, before a caller's transaction is used: a table that isn't there would be the end of that.

        Returns whether the tables are there for others too; else they come, or go, with this transaction.
        """
        if self._checked or not self._dialect.excludes:
            self.ready()
            return True
        with self._telling():
            found = migrations.version_of(theirs, self._dialect.schema)
            if found is None and self._address.migrate:
                self._make_beside(theirs)
            else:
                migrations.check(found, self._address.shown)
            return self._sees_tables()

    def _make_beside(self, theirs: sa.Connection) -> None:
        """Make the tables, in a transaction of our own if that is possible."""
        dialect, shown = self._dialect, self._address.shown
        try:
            self._repeat(
                dialect.migrating,
                lambda connection: migrations.migrate(connection, dialect.schema, shown),
                once=True,
            )
        except sa.exc.SQLAlchemyError as error:
            if not dialect.is_repeatable(error):
                raise
            # Their transaction has written, so nobody else can; then the tables come with it, or go.
            migrations.migrate(theirs, dialect.schema, shown)

    def _sees_tables(self) -> bool:
        """Whether a connection of ours does."""
        schema = self._dialect.schema
        try:
            found = self._repeat(
                self._dialect.reading, lambda connection: migrations.version_of(connection, schema), once=True
            )
        except sa.exc.SQLAlchemyError as error:
            if not self._dialect.is_repeatable(error):
                raise
            return False  # a file that isn't in WAL mode yet, of which we have made nothing
        return found is not None

    def migrate(self) -> list[str]:
        """Bring the schema to the version of this code. Any number of processes may at once. Returns what was done."""
        dialect, shown = self._dialect, self._address.shown
        dialect.check_place(making=True)
        engine = dialect.create_engine(patient=True)  # an index on many rows takes its time
        with self._telling():
            try:
                return self._repeat(
                    lambda _: dialect.migrating(engine),
                    lambda connection: migrations.migrate(connection, dialect.schema, shown),
                )
            except sa.exc.SQLAlchemyError as error:
                if not dialect.is_forbidden(error):
                    raise
                raise ConfigurationError(
                    f"{shown}: this role may not make or change tables: run `gotasks migrate URL` with one that may, "
                    f"once ({_text(error)})"
                ) from None
            finally:
                engine.dispose()

    def _when_ready(
        self,
        opened: Callable[[sa.Engine], AbstractContextManager[sa.Connection]],
        work: Callable[[sa.Connection], T],
        *,
        ids: Collection[str] = (),
        once: bool = False,
    ) -> T:
        self.ready()
        with self._telling(ids):
            return self._repeat(opened, work, once=once)

    def _repeat(
        self,
        opened: Callable[[sa.Engine], AbstractContextManager[sa.Connection]],
        work: Callable[[sa.Connection], T],
        *,
        once: bool = False,
    ) -> T:
        end = time.monotonic() + self._address.timeout
        pause = 0.001
        while True:
            try:
                with forks.held_off(), opened(self.engine) as connection:
                    return work(connection)
            except sa.exc.SQLAlchemyError as error:
                if once or not self._dialect.is_repeatable(error) or time.monotonic() > end:
                    raise
            # Rolled back as a whole, so nothing was done. At random, so that two of a kind don't meet again.
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, 0.1)

    @contextmanager
    def _telling(self, ids: Collection[str] = ()) -> Iterator[None]:
        """Errors as the contract has them. Not with what SQLAlchemy and the server say of them: bodies are in that."""
        try:
            yield
        except sa.exc.UnboundExecutionError:
            raise ConfigurationError("connection= is a Session without an engine: bind it to one") from None
        except sa.exc.SQLAlchemyError as error:
            text = f"{self._address.shown}: {_text(error)}"
            if (advice := self._dialect.advice(error)) is not None:
                raise ConfigurationError(f"{text}: {advice}") from None
            if ids and self._dialect.is_full(error):
                raise Rejected(text, ids=ids) from None
            raise BrokerUnavailable(text) from None


def _text(error: sa.exc.SQLAlchemyError) -> str:
    """The first line of what the database said."""
    reason = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
    # pymysql's errors are a number and a sentence.
    words = reason.args[-1] if reason.args and isinstance(reason.args[-1], str) else reason
    return str(words).strip().partition("\n")[0] or type(reason).__name__
