"""Enqueues: tasks are stored that aren't there yet, and what is there is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import sqlalchemy as sa

from gotasks.broker import Envelope
from gotasks.errors import BrokerUnavailable
from gotasks_sql.chunks import chunks
from gotasks_sql.database import Database
from gotasks_sql.dialects.base import Dialect

#: How often an enqueue looks for what kept it from being stored, and finds nothing.
_ATTEMPTS = 100

#: The ids that were stored, and those that are there already → the id that is there.
Stored = tuple[set[str], dict[str, str]]


class Enqueues:
    """Those of a broker. Each returns what is there already: its id → the id that is there."""

    def __init__(self, dialect: Dialect, database: Database) -> None:
        self._dialect = dialect
        self._database = database

    def enqueue(self, envelopes: Sequence[Envelope]) -> dict[str, str]:
        """Store them in transactions of our own."""
        return self._all(envelopes, self._store)

    def enqueue_on(self, theirs: sa.Connection, envelopes: Sequence[Envelope]) -> dict[str, str]:
        """Store them in a caller's transaction."""
        shared = self._database.ready_on(theirs)
        return self._all(envelopes, partial(self._store_on, theirs, shared=shared))

    def _all(
        self, envelopes: Sequence[Envelope], store: Callable[[list[Envelope]], Stored]
    ) -> dict[str, str]:
        there: dict[str, str] = {}
        for part in chunks(envelopes, lambda each: (each.id, each.unique), lambda each: each.body):
            left = part
            for _ in range(_ATTEMPTS):
                stored, known = store(left)
                there |= known
                # What is in neither was there when it should have been stored, and was gone when it was looked for.
                left = [each for each in left if each.id not in stored and each.id not in known]
                if not left:
                    break
            else:
                raise BrokerUnavailable("others store and end these tasks all the time")
        return there

    def _store(self, some: list[Envelope]) -> Stored:
        dialect = self._dialect

        def store(connection: sa.Connection) -> Stored:
            stored = dialect.enqueue(connection, some[0].queue, some)
            others = [each for each in some if each.id not in stored]
            return stored, dialect.known(connection, others) if others else {}

        return self._database.store(store, [each.id for each in some])

    def _store_on(self, theirs: sa.Connection, some: list[Envelope], *, shared: bool) -> Stored:
        """In a caller's transaction, which may last, and may see the past only.

        So what is there is looked for on a connection of ours first. To try and store it would lock it on some
        databases, for the workers too, and on others be the end of a transaction that began before it came.

        `shared`: a connection of ours sees the tables. Else they were made in this transaction, and hold nothing but
        what was stored in it.
        """
        dialect, database, ids = self._dialect, self._database, [each.id for each in some]
        known = database.read(dialect.find, some) if shared else {}
        new = [each for each in some if each.id not in known]
        stored: set[str] = set()
        if new:
            stored = database.store_on(
                theirs, lambda connection: dialect.enqueue(connection, new[0].queue, new), ids
            )
        # What they have stored themselves, and records whose time is over.
        others = [each for each in new if each.id not in stored]
        if others:
            known |= database.store_on(theirs, lambda connection: dialect.known(connection, others), ids)
        return stored, known
