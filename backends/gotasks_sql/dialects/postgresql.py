"""PostgreSQL: what is asked often is one statement each, committed by itself."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from gotasks.broker import Envelope
from gotasks_sql.address import Address
from gotasks_sql.dialects.base import CHECK_LOGIN, MAKE_DATABASE, Dialect
from gotasks_sql.dialects.postgresql_starts import FIRST, Start, Starts
from gotasks_sql.dialects.postgresql_statements import CLOCK, NEW, PostgreSQLStatements
from gotasks_sql.listener import ListeningWakeups
from gotasks_sql.operations import SOME
from gotasks_sql.rows import Claim, Held, Taken, microseconds, unique_hash, unique_key
from gotasks_sql.wakeups import Wakeups

#: SQLSTATE: serialization failure, deadlock.
_REPEATABLE = frozenset({"40001", "40P01"})
#: Disk full, out of memory.
_FULL = frozenset({"53100", "53200"})
_FORBIDDEN = frozenset({"42501"})

#: What it says to who isn't let in, PgBouncer too. In English only: libpq keeps the SQLSTATE of these to itself.
_REFUSED = re.compile(
    r"(FATAL|ERROR): +((password|Peer|Ident|certificate) authentication failed|no pg_hba.conf entry|no such user"
    r'|pg_hba.conf rejects|permission denied for database|role "[^"]*" (does not exist|is not permitted to log in))'
)
_UNKNOWN_DATABASE = re.compile(r'(FATAL|ERROR): +(database "[^"]*" does not exist|no such database)')

#: Key of the advisory lock for migrations: any number that nobody else uses.
_LOCK = 0x676F7461736B73  # "gotasks"

#: Every statement finds its rows by an index, and says in which order. The planner thinks otherwise while it believes a
#: table to be empty, and keeps such a plan for a while after that isn't so any more.
_PLANNER = "-c enable_seqscan=off -c enable_bitmapscan=off -c jit=off"


class PostgreSQL(Dialect):
    """By psycopg 3. Statements are prepared by the driver when they come often."""

    names = frozenset({"postgresql"})
    looks_first = False
    # As a query of its own it's asked once, so that what is compared with it can be found by an index.
    now = sa.literal_column(f"(SELECT {CLOCK})", sa.BigInteger)

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        name, place = self.tasks.name, address.schema
        self._sql = PostgreSQLStatements(f'"{place}".{name}' if place else name)
        self._channel = _channel(address)
        self._starts = Starts()

    # -- connections ------------------------------------------------------------------------------------

    def create_engine(self, *, patient: bool = False) -> sa.Engine:
        address = self.address
        timeout = None if patient else address.timeout

        class Connection(psycopg.Connection[Any]):
            """Gives up on a server that doesn't answer; the driver by itself would wait for ever."""

            def wait(self, *args: Any, **kwargs: Any) -> Any:
                listens = "timeout" in kwargs  # for a while, to whatever comes
                kwargs.setdefault("timeout", timeout)
                try:
                    return super().wait(*args, **kwargs)
                except psycopg.errors._WaitTimeout as error:  # noqa: SLF001 - there is no other name for it
                    if listens:
                        raise
                    self.pgconn.finish()  # in the middle of a reply, so of no use any more
                    raise psycopg.OperationalError(f"no answer within {address.timeout:g} s") from error

        def connect() -> psycopg.Connection[Any]:
            return Connection.connect(**options)

        engine = sa.create_engine(
            address.url,
            **self.pool(),
            isolation_level="AUTOCOMMIT",
            creator=connect,
        )
        options = engine.dialect.create_connect_args(address.url)[1]
        options["connect_timeout"] = max(round(address.connect_timeout), 2)  # libpq takes no less
        options["prepare_threshold"] = address.prepare_threshold
        if address.prepare_threshold is not None:  # else there is a pooler between, which takes no options
            settings = [_PLANNER, options.get("options", "")]
            if not patient:  # what we don't wait for any more mustn't go on waiting there
                settings.append(f"-c statement_timeout={round(address.timeout * 1000)}")
            options["options"] = " ".join(settings)
        return engine

    def at_once(self, engine: sa.Engine) -> Any:
        return engine.connect()

    def reading(self, engine: sa.Engine) -> Any:
        return engine.connect()

    @contextmanager
    def transaction(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        with (
            engine.connect().execution_options(isolation_level="READ COMMITTED") as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def migrating(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        with self.transaction(engine) as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            yield connection

    def wakeups(self, engine: Callable[[], sa.Engine]) -> Wakeups:
        if not self._channel:
            return Wakeups()
        return ListeningWakeups(lambda: _driver_connection(engine()), self._channel)

    # -- operations, one statement each -------------------------------------------------------------------

    def insert_new(self) -> sa.Insert:
        return postgresql.insert(self.tasks).on_conflict_do_nothing()

    def enqueue(self, connection: sa.Connection, queue: str, envelopes: Sequence[Envelope]) -> set[str]:
        new = [
            (
                each.id,
                microseconds(each.delay),
                -each.priority,
                None if each.unique is None else unique_hash(each.unique),
                None if each.unique is None else unique_key(each.unique),
                each.body,
            )
            for each in envelopes
        ]
        params: dict[str, Any] = {"queue": queue, "channel": self._channel}
        if len(new) == 1:
            statement = self._sql.enqueue_one
            params |= zip(NEW, new[0], strict=True)
        else:
            statement = self._sql.enqueue_many
            params |= zip(NEW.values(), map(list, zip(*new, strict=True)), strict=True)
        rows = connection.exec_driver_sql(statement, params)
        return {row[0] for row in rows if row[0] is not None}

    def claim(self, connection: sa.Connection, queue: str, *, limit: int, lease: int, token: int) -> Claim:
        params = {"queue": queue, "limit": limit, "lease": lease, "token": token}
        start = self._starts.of(queue)
        claimed = self._claim(connection, params, start)
        if start is not FIRST and claimed is not None and not claimed.taken:
            claimed = self._claim(connection, params, FIRST)
        if claimed is None:
            self.promote(connection, queue)
            claimed = self._claim(connection, params, FIRST, promoted=True)
        assert claimed is not None
        return claimed

    def _claim(
        self, connection: sa.Connection, params: dict[str, Any], start: Start, *, promoted: bool = False
    ) -> Claim | None:
        """None if something is due that has to be promoted before."""
        asked = {**params, **start._asdict(), "promoted": promoted}
        *rows, last = connection.exec_driver_sql(self._sql.claim, asked).all()
        if last.deaths > 0:
            return None
        if last.place is None or promoted:  # more may be due than was promoted at once
            self._starts.forget(params["queue"])
        else:
            self._starts.went_on(params["queue"], start, Start(last.rank, max(last.place, 0), last.seen))
        rows.sort(key=lambda row: row.number)
        taken = [Taken(row.id, row.body, row.deaths, row.rank, row.unique_key) for row in rows]
        return Claim(taken, None if last.number is None else max(last.number, 0) / 1e6)

    def promote(self, connection: sa.Connection, queue: str) -> None:
        connection.exec_driver_sql(self._sql.promote, {"queue": queue, "limit": SOME})
        self._starts.forget(queue)

    def extend(self, connection: sa.Connection, helds: Sequence[Held], *, lease: int) -> set[str]:
        return _ids(
            connection.exec_driver_sql(self._sql.extend, {**_leases(_in_order(helds)), "lease": lease})
        )

    def checkpoint(self, connection: sa.Connection, helds: Sequence[Held]) -> set[str]:
        return _ids(connection.exec_driver_sql(self._sql.checkpoint, _writes(_in_order(helds))))

    def ack(self, connection: sa.Connection, helds: Sequence[Held], *, keep: int) -> set[str]:
        writes = _writes(_in_order(helds))
        if keep > 0:
            return _ids(connection.exec_driver_sql(self._sql.ack, {**writes, "keep": keep}))
        del writes["bodies"]
        return _ids(connection.exec_driver_sql(self._sql.ack_and_remove, writes))

    def release(self, connection: sa.Connection, helds: Sequence[Held], *, queue: str) -> set[str]:
        # The order of the call is that of the places.
        numbers = {each.id: number for number, each in enumerate(helds)}
        ordered = _in_order(helds)
        writes = {
            **_writes(ordered),
            "delays": [each.delay for each in ordered],
            "targets": [each.target or queue for each in ordered],
            "numbers": [numbers[each.id] for each in ordered],
            "queue": queue,
            "channel": self._channel,
        }
        return _ids(connection.exec_driver_sql(self._sql.release, writes))

    def page(
        self,
        index: str,
        here: Sequence[Any],
        order: Sequence[sa.ColumnElement[Any]],
        last: Sequence[Any] | None,
        limit: int,
    ) -> sa.Select[Any]:
        # No index has the ids behind the rest, so it would read and sort all that follows. As many as are wanted, and
        # those that have the place of the last of them, come in the order of the index.
        columns = self.columns
        if last is not None:
            here = [*here, sa.tuple_(*order) > sa.tuple_(*last)]
        *firsts, _ = order
        some = sa.select(columns.body, *order).where(*here).order_by(*firsts).fetch(limit, with_ties=True)
        found = some.subquery()
        return (
            sa.select(found.c.id, found.c.body).order_by(*(found.c[each.name] for each in order)).limit(limit)
        )

    # -- errors -----------------------------------------------------------------------------------------

    def is_repeatable(self, error: sa.exc.SQLAlchemyError) -> bool:
        return _state(error) in _REPEATABLE

    def is_full(self, error: sa.exc.SQLAlchemyError) -> bool:
        return _state(error) in _FULL

    def is_forbidden(self, error: BaseException | None) -> bool:
        return _state(error) in _FORBIDDEN

    def advice(self, error: sa.exc.SQLAlchemyError) -> str | None:
        reason = getattr(error, "orig", None)
        if not isinstance(reason, psycopg.OperationalError) or reason.sqlstate is not None:
            return None  # it was let in
        if _REFUSED.search(str(reason)) or (reason.pgconn is not None and reason.pgconn.needs_password):
            return CHECK_LOGIN
        return MAKE_DATABASE if _UNKNOWN_DATABASE.search(str(reason)) else None

    def warnings(self, connection: sa.Connection) -> Sequence[str]:
        found = []
        for name, bad, why in (
            ("synchronous_commit", "off", "a server that is killed forgets what it confirmed last"),
            ("fsync", "off", "a machine that loses power may lose everything"),
            ("autovacuum", "off", "the tables grow with every task, and claims slow down"),
        ):
            if (
                connection.execute(sa.text("SELECT current_setting(:name)"), {"name": name}).scalar_one()
                == bad
            ):
                found.append(f"PostgreSQL: {name} is off: {why}. Set it to on")
        return found


def _channel(address: Address) -> str:
    """The channel of NOTIFY for these tables; empty: none. A name may have 63 bytes."""
    name = f"{address.schema or ''}.{address.prefix}"
    return f"gotasks_{hashlib.sha256(name.encode()).hexdigest()[:16]}" if address.notify else ""


def _driver_connection(engine: sa.Engine) -> psycopg.Connection[Any]:
    """A connection that isn't the pool's any more."""
    pooled = engine.raw_connection()
    connection = pooled.driver_connection
    pooled.detach()  # which forgets it
    return cast("psycopg.Connection[Any]", connection)


def _in_order(helds: Sequence[Held]) -> list[Held]:
    """As everybody locks rows: by id."""
    return sorted(helds, key=lambda each: each.id)


def _leases(helds: Collection[Held]) -> dict[str, Any]:
    return {"ids": [each.id for each in helds], "tokens": [each.token for each in helds]}


def _writes(helds: Collection[Held]) -> dict[str, Any]:
    return {**_leases(helds), "seqs": [each.seq for each in helds], "bodies": [each.body for each in helds]}


def _ids(rows: sa.CursorResult[Any]) -> set[str]:
    return {row[0] for row in rows if row[0] is not None}


def _state(error: BaseException | None) -> str | None:
    return getattr(getattr(error, "orig", None), "sqlstate", None)


DIALECT = PostgreSQL
