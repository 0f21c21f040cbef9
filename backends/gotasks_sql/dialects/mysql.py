"""MySQL 8 and MariaDB 10.6 or later, on InnoDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import sqlalchemy as sa
from msgspec import structs
from sqlalchemy.dialects import mysql

from gotasks_sql.dialects.base import CHECK_LOGIN, MAKE_DATABASE, Dialect
from gotasks_sql.wakeups import Wakeups

# SQLAlchemy imports the driver at the first call. That it is missing is told when the URL is read.
import_module("pymysql")

#: Error codes (MySQL manual, "Server Error Message Reference"): deadlock, lock wait timeout.
_REPEATABLE = frozenset({1213, 1205})
#: Table is full, disk is full (two).
_FULL = frozenset({1114, 1021, 3})
#: Access denied to a database or a table, and a command that is denied.
_FORBIDDEN = frozenset({1044, 1142, 1227})

#: Access denied for a user (two), for this machine, to a database.
_REFUSED = frozenset({1045, 1698, 1130, 1044})
_UNKNOWN_DATABASE = 1049

#: The name of the lock for migrations, and how long one waits for another. Seconds.
_LOCK, _LOCK_WAIT = "gotasks-migrate", 60

#: There is nothing by which a server of this kind wakes anybody: an idle worker looks so often. Seconds.
_LATEST = 0.25

#: What the limit on a body needs: quoted, it may take twice its size.
_PACKET = 16 * 1024 * 1024


class MySQL(Dialect):
    """READ COMMITTED: under the default isolation a claim would lock the gaps into which others insert."""

    names = frozenset({"mysql", "mariadb"})
    # Not by way of NOW(): that is the session's local time, in which an hour comes twice a year.
    now = sa.literal_column("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))", sa.BigInteger)
    limits = structs.replace(Dialect.limits, max_payload=4 * 1024 * 1024)

    def create_engine(self, *, patient: bool = False) -> sa.Engine:
        address = self.address
        limit = None if patient else address.timeout
        # The server gives up before we do: what we don't wait for any more mustn't go on waiting there.
        lock_wait = 3600 if patient else max(round(address.timeout / 2), 1)
        return sa.create_engine(
            address.url,
            **self.pool(),
            isolation_level="READ COMMITTED",
            connect_args={
                "connect_timeout": max(round(address.connect_timeout), 1),
                "read_timeout": limit,
                "write_timeout": limit,
                "init_command": f"SET SESSION innodb_lock_wait_timeout = {lock_wait}",
                "charset": "utf8mb4",
            },
        )

    def transaction(self, engine: sa.Engine) -> Any:
        return engine.begin()

    def reading(self, engine: sa.Engine) -> Any:
        return engine.connect()  # its end ends the transaction; a commit would be one exchange more

    @contextmanager
    def migrating(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        with engine.connect() as connection:
            if connection.execute(sa.select(sa.func.get_lock(_LOCK, _LOCK_WAIT))).scalar_one() != 1:
                raise sa.exc.SQLAlchemyError(f"another migration is under way, for {_LOCK_WAIT} s and more")
            connection.commit()
            try:
                with connection.begin():
                    yield connection
            finally:  # after the commit, so that the next one sees what was done
                connection.execute(sa.select(sa.func.release_lock(_LOCK)))

    def wakeups(self, engine: Callable[[], sa.Engine]) -> Wakeups:
        return Wakeups(latest=_LATEST)

    def insert_new(self) -> sa.Insert:
        return sa.insert(self.tasks).prefix_with("IGNORE")

    def change(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        # The driver sends many rows of an INSERT at once, but those of an UPDATE one by one. The rows are there and
        # locked, so this never inserts: what it would insert isn't looked at.
        names = tuple(name for name in rows[0] if name != "id")
        if names not in self._changes:
            inserted = mysql.insert(self.tasks)
            self._changes[names] = inserted.on_duplicate_key_update(
                {name: inserted.inserted[name] for name in names}
            )
        connection.execute(self._changes[names], [{**_UNSEEN, **row} for row in rows])

    def page(
        self,
        index: str,
        here: Sequence[Any],
        order: Sequence[sa.ColumnElement[Any]],
        last: Sequence[Any] | None,
        limit: int,
    ) -> sa.Select[Any]:
        # It asks a comparison of tuples of each row from the first on. Written out it's a range of the index, but left
        # to itself it doesn't take a range that is long, however few of its rows are wanted.
        columns = self.columns
        if last is not None:
            *firsts, column = zip(order, last, strict=True)
            behind = column[0] > column[1]
            for each, value in reversed(firsts):
                behind = (each > value) | ((each == value) & behind)
            here = [*here, behind]
        statement = sa.select(columns.id, columns.body).where(*here).order_by(*order).limit(limit)
        return statement.with_hint(self.tasks, f"FORCE INDEX ({self.tasks.name}_{index})")

    def is_repeatable(self, error: sa.exc.SQLAlchemyError) -> bool:
        return _code(error) in _REPEATABLE

    def is_full(self, error: sa.exc.SQLAlchemyError) -> bool:
        return _code(error) in _FULL

    def is_forbidden(self, error: BaseException | None) -> bool:
        return _code(error) in _FORBIDDEN

    def advice(self, error: sa.exc.SQLAlchemyError) -> str | None:
        if _code(error) in _REFUSED:
            return CHECK_LOGIN
        return MAKE_DATABASE if _code(error) == _UNKNOWN_DATABASE else None

    def warnings(self, connection: sa.Connection) -> Sequence[str]:
        ask = sa.text("SELECT @@innodb_flush_log_at_trx_commit, @@max_allowed_packet")
        flush, packet = connection.execute(ask).one()
        found = []
        if flush == 0:
            found.append(
                "innodb_flush_log_at_trx_commit is 0: a server that is killed forgets its last second. Set it to 1"
            )
        if packet < _PACKET:
            found.append(
                f"max_allowed_packet is {packet}: larger tasks will be refused. Set it to {_PACKET} or more"
            )
        return found


_UNSEEN: Mapping[str, Any] = {"queue": "", "state": 0, "rank": 0, "place": 0, "body": b""}


def _code(error: BaseException | None) -> int | None:
    orig = getattr(error, "orig", None)
    args = getattr(orig, "args", ())
    return args[0] if args and isinstance(args[0], int) else None


DIALECT = MySQL
