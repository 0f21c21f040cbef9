"""Lookups: what is only read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from gotasks.broker import QueueStats, Record, State
from gotasks_sql.schema import CANCELLED, DONE, LEASED, READY, SCHEDULED, Schema, state_is

_STATES = {
    SCHEDULED: State.SCHEDULED,
    READY: State.READY,
    LEASED: State.LEASED,
    DONE: State.DONE,
    CANCELLED: State.CANCELLED,
}


class Lookups:
    """Each takes a connection. What is due counts as ready, and a record whose time is over as gone."""

    now: sa.ColumnElement[int]
    schema: Schema
    tasks: sa.Table
    columns: Any

    def stats(self, connection: sa.Connection, queue: str) -> QueueStats:
        """Count what a queue holds."""
        columns = self.columns

        def count(state: int, *more: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
            here = sa.select(sa.func.count()).select_from(self.tasks)
            return here.where(columns.queue == queue, *state_is(columns, state), *more).scalar_subquery()

        due = columns.until <= self.now
        ready, was_due, scheduled, leased = connection.execute(
            sa.select(count(READY), count(SCHEDULED, due), count(SCHEDULED, ~due), count(LEASED))
        ).one()
        return QueueStats(ready=ready + was_due, scheduled=scheduled, leased=leased)

    def browse(
        self, connection: sa.Connection, queue: str, state: State, *, limit: int, after: str | None
    ) -> list[Record]:
        """Records of one state, the next to leave first. What is due has to be promoted before."""
        columns = self.columns
        number = next(each for each, name in _STATES.items() if name is state)
        order = {
            SCHEDULED: (columns.until, columns.id),
            READY: (columns.rank, columns.place, columns.id),
            LEASED: (columns.until, columns.id),
        }[number]
        here = [columns.queue == queue, *state_is(columns, number)]
        waits = [columns.until > self.now] if number == SCHEDULED else []
        last = None
        if after is None:
            here += waits
        else:  # what comes after one that waits does too: a second bound would only be in the first one's way
            last = connection.execute(sa.select(*order).where(columns.id == after, *here, *waits)).first()
            if last is None:
                return []
        index = "ready" if number == READY else "timed"
        rows = connection.execute(self.page(index, here, order, last, limit))
        return [Record(id=row.id, queue=queue, state=state, body=bytes(row.body)) for row in rows]

    def page(
        self,
        index: str,
        here: Sequence[Any],
        order: Sequence[sa.ColumnElement[Any]],
        last: Sequence[Any] | None,
        limit: int,
    ) -> sa.Select[Any]:
        """Ids and bodies of `limit` rows in this order, which is that of `index` and then of the ids.

        `last`: begin behind the row with these values. The words are those in which this database begins to read there,
        and ends when it has enough: a page costs the same wherever it is.
        """
        columns = self.columns
        if last is not None:
            here = [*here, sa.tuple_(*order) > sa.tuple_(*last)]
        return sa.select(columns.id, columns.body).where(*here).order_by(*order).limit(limit)

    def get(self, connection: sa.Connection, ids: Collection[str]) -> dict[str, Record]:
        """The records of these tasks that are known."""
        columns = self.columns
        due = (columns.until <= self.now).label("is_due")
        statement = sa.select(columns.id, columns.queue, columns.state, columns.body, due)
        records = {}
        for row in connection.execute(statement.where(columns.id.in_(list(ids)))):
            if row.is_due and row.state in (DONE, CANCELLED):
                continue
            state = State.READY if row.is_due and row.state == SCHEDULED else _STATES[row.state]
            records[row.id] = Record(id=row.id, queue=row.queue, state=state, body=bytes(row.body))
        return records

    def waiting(self, connection: sa.Connection, queue: str) -> int:
        """How many are ready or scheduled."""
        columns = self.columns
        statement = sa.select(sa.func.count()).select_from(self.tasks)
        return sum(
            connection.execute(
                statement.where(columns.queue == queue, *state_is(columns, state))
            ).scalar_one()
            for state in (READY, SCHEDULED)
        )

    def has_old_records(self, connection: sa.Connection) -> bool:
        """Whether there are records whose time is over."""
        columns = self.columns
        found = [
            sa.exists().where(*state_is(columns, state), columns.until <= self.now)
            for state in (DONE, CANCELLED)
        ]
        return bool(connection.execute(sa.select(sa.or_(*found))).scalar_one())
