"""The schema: one table of tasks, one row a task, and a table that says which version of the schema this is.

Every change of a task's state changes its one row, so a task is always in exactly one place. Indexes cost with every
write, so there are few: on databases with partial indexes a row is in one of `ready`, `timed` and `ended`, as its state
has it, and the cost of a claim doesn't grow with what lies behind. None has `body`, `seq` or `deaths`: on PostgreSQL a
checkpoint is a HOT update, which touches no index.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

#: Values of the column `state`.
SCHEDULED, READY, LEASED, DONE, CANCELLED = range(5)
LIVE = (SCHEDULED, READY, LEASED)

#: The conditions of the partial indexes. SQLite takes an index only where its condition is in the query, word for word.
_READY, _TIMED, _ENDED = "state = 1", "state IN (0, 2)", "state IN (3, 4)"
_PARTIAL = ("postgresql", "sqlite")  # the databases that have such
_CONDITIONS = {SCHEDULED: _TIMED, READY: _READY, LEASED: _TIMED, DONE: _ENDED, CANCELLED: _ENDED}


def state_is(columns: Any, state: int) -> tuple[Any, ...]:
    """That a task is in this state, in words in which every database sees the index. Written out, never a parameter."""
    return columns.state == sa.literal_column(str(state)), sa.text(_CONDITIONS[state])


def _name(length: int) -> sa.types.TypeEngine[str]:
    """Names and ids are compared byte by byte on every database. (SQLite does that by itself.)"""
    return (
        sa.String(length)
        .with_variant(sa.Text(collation="C"), "postgresql")
        .with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
    )


def _bytes(large: type[Any]) -> sa.types.TypeEngine[bytes]:
    return sa.LargeBinary().with_variant(large(), "mysql", "mariadb")


#: Of the table of tasks in PostgreSQL: room on each page for HOT updates, and a vacuum that keeps up with a table whose
#: every row changes.
_SETTINGS = {
    "fillfactor": 80,
    "autovacuum_vacuum_scale_factor": 0.01,
    "autovacuum_vacuum_threshold": 1000,
    "autovacuum_analyze_scale_factor": 0.05,
    "autovacuum_vacuum_cost_delay": 0,
}


class Schema:
    """The tables of one prefix in one schema of a database: `dialect` is which, as `Address` names it."""

    def __init__(self, prefix: str, schema: str | None, dialect: str) -> None:
        metadata = sa.MetaData(schema=schema)
        self.metadata = metadata
        self.tasks = sa.Table(
            f"{prefix}tasks",
            metadata,
            sa.Column("id", _name(64), primary_key=True),
            sa.Column("queue", _name(128), nullable=False),
            sa.Column("state", sa.SmallInteger, nullable=False),
            # The priority below zero, so that every index is read from its low end.
            sa.Column("rank", sa.SmallInteger, nullable=False),
            # The order among the ready ones of one rank. See `Dialect.place`.
            sa.Column("place", sa.BigInteger, nullable=False),
            # When a scheduled task becomes ready, a lease is over, or the record of an ended task may go: microseconds
            # since 1970. Null while it's ready.
            sa.Column("until", sa.BigInteger),
            # The token of the call that leased it, while that lease may still write.
            sa.Column("lease", sa.BigInteger),
            sa.Column("seq", sa.BigInteger, nullable=False, server_default="0"),
            sa.Column("deaths", sa.Integer, nullable=False, server_default="0"),
            # The unique key of a task that lives, and its SHA-256: a key may be longer than what an index takes.
            sa.Column("unique_hash", sa.LargeBinary(32).with_variant(mysql.BINARY(32), "mysql", "mariadb")),
            sa.Column("unique_key", _bytes(mysql.MEDIUMBLOB)),
            sa.Column("body", _bytes(mysql.LONGBLOB), nullable=False),
            mysql_engine="InnoDB",
            mariadb_engine="InnoDB",
        )
        # Not `postgresql_with=`, which SQLAlchemy 2.0 doesn't know for a table.
        settings = ", ".join(f"{name} = {value}" for name, value in _SETTINGS.items())
        alter = sa.DDL(f"ALTER TABLE %(fullname)s SET ({settings})")  # type: ignore[no-untyped-call]
        sa.event.listen(self.tasks, "after_create", alter.execute_if(dialect="postgresql"))
        columns = self.tasks.c
        # Only for this database: SQLAlchemy imports each dialect that is named, which takes a process 30 ms for two.
        self._condition = f"{dialect}_where" if dialect in _PARTIAL else None
        self._index("ready", (columns.queue, columns.state, columns.rank, columns.place), _READY)
        self._index("timed", (columns.queue, columns.state, columns.until), _TIMED)
        self._index("ended", (columns.state, columns.until), _ENDED)
        self._index("unique", (columns.unique_hash,), "unique_hash IS NOT NULL", unique=True)
        #: One row.
        self.version = sa.Table(
            f"{prefix}schema",
            metadata,
            sa.Column("version", sa.Integer, nullable=False),
            # The oldest version of the code that can work with this schema.
            sa.Column("readable_from", sa.Integer, nullable=False),
            # SQLite has one writer at a time, so a counter costs nothing there: the last place given away.
            sa.Column("last_place", sa.BigInteger, nullable=False, server_default="0"),
        )

    def _index(
        self, name: str, columns: tuple[sa.Column[Any], ...], where: str, *, unique: bool = False
    ) -> None:
        partial: dict[str, Any] = {} if self._condition is None else {self._condition: sa.text(where)}
        sa.Index(f"{self.tasks.name}_{name}", *columns, unique=unique, **partial)
