"""A program's own transaction, for the rows about TRANSACTIONAL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import sqlalchemy as sa

from gotasks.broker import BrokerURL
from gotasks_sql.address import Address
from gotasks_sql.conformance.tables import schema_of
from gotasks_sql.dialects import dialect_of


def notes_of(url: str) -> sa.Table:
    """A table of the program's own, in the place of this URL."""
    schema = schema_of(url)
    name = schema.tasks.name.removesuffix("tasks") + "notes"
    return sa.Table(
        name, sa.MetaData(schema=schema.metadata.schema), sa.Column("text", sa.String(200), nullable=False)
    )


class ProgramsTransaction:
    """On a connection that was made as a program makes it, with nothing set as the broker has it."""

    def __init__(self, connection: sa.Connection, notes: sa.Table) -> None:
        self.connection = connection
        self.excludes = connection.dialect.name == "sqlite"
        self._notes = notes
        self._transaction = connection.begin()

    def note(self, text: str) -> None:
        self.connection.execute(sa.insert(self._notes).values(text=text))

    def notes(self) -> Sequence[str]:
        return self.connection.execute(sa.select(self._notes.c.text)).scalars().all()

    def savepoint(self) -> sa.NestedTransaction:
        return self.connection.begin_nested()

    def commit(self) -> None:
        self._transaction.commit()

    def rollback(self) -> None:
        self._transaction.rollback()


@contextmanager
def transaction(url: str) -> Iterator[ProgramsTransaction]:
    """One that is begun, and rolled back if it is open at the end of the block."""
    engine, notes = _program(url)
    with engine.connect() as connection:
        yield ProgramsTransaction(connection, notes)


@lru_cache(maxsize=64)
def _program(url: str) -> tuple[sa.Engine, sa.Table]:
    """A program's engine, which makes a new connection each time, and its own table, which is made here."""
    address = Address.of(BrokerURL(url))
    dialect, notes = dialect_of(address), notes_of(url)
    engine = sa.create_engine(address.url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        there = sa.inspect(connection).has_table(notes.name, schema=notes.schema)
    if not there:  # two may want to make it at once, or while a transaction of another is open
        ours = dialect.create_engine()
        with dialect.migrating(ours) as connection:
            notes.create(connection, checkfirst=True)
        ours.dispose()
    return engine, notes
