"""Statements: built once, since building one costs more than running it. What varies is a parameter.

`:ids` may be any number of ids. The server's clock is part of the statements: see `Operations`.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from gotasks_sql.schema import CANCELLED, DONE, LEASED, LIVE, READY, SCHEDULED, Schema, state_is

#: What an ended task has no more.
ENDED = {"lease": None, "unique_hash": None, "unique_key": None, "deaths": 0}


class Statements:
    """Those of `Operations`, for the tables of one schema."""

    def __init__(self, schema: Schema, now: sa.ColumnElement[int]) -> None:
        tasks = schema.tasks
        c = tasks.c
        queue: sa.ColumnElement[bool] = c.queue == sa.bindparam("queue")
        these: sa.ColumnElement[bool] = c.id.in_(sa.bindparam("ids", expanding=True))
        limit = sa.bindparam("limit", type_=sa.Integer)
        later = now + sa.bindparam("lasting", type_=sa.BigInteger)
        update, delete = sa.update(tasks), sa.delete(tasks)

        def of(state: int, *columns: Any) -> sa.Select[Any]:
            return sa.select(*columns).where(queue, *state_is(c, state))

        self.clock = sa.select(now)
        self.marks = sa.select(c.id, c.seq).where(these)

        over = c.state.in_((DONE, CANCELLED)) & (c.until <= now)
        # Without a lock: in a caller's transaction that would keep workers from the tasks that are there.
        known = sa.select(c.id, c.unique_hash, over.label("over"))
        self.known_ids = known.where(these)
        self.known_keys = known.where(c.unique_hash.in_(sa.bindparam("hashes", expanding=True)))
        self.delete = delete.where(these)
        self.delete_over = delete.where(these, over)

        self.look = sa.select(
            now.label("now"),
            of(SCHEDULED, sa.func.min(c.until)).scalar_subquery().label("due"),
            of(LEASED, sa.func.min(c.until)).scalar_subquery().label("over"),
            sa.exists(of(READY, c.id)).label("ready"),
        )

        self.due = of(SCHEDULED, c.id).where(c.until <= now).order_by(c.until).limit(limit)
        self.due = self.due.with_for_update(skip_locked=True)
        self.promote = update.where(these, c.state == SCHEDULED).values(state=READY, until=None)

        taken = (c.id, c.body, c.deaths, c.rank, c.unique_key, c.state)
        order = (c.rank, c.until, c.place)
        # Chosen without locks, since to sort them some databases would lock all that is over.
        self.over = of(LEASED, c.id).where(c.until <= now).order_by(*order).limit(limit)
        left = of(LEASED, *taken).where(these, c.until <= now).order_by(*order)
        self.left = left.with_for_update(skip_locked=True)
        ready = of(READY, *taken).order_by(c.rank, c.place)
        self.ready = ready.limit(limit).with_for_update(skip_locked=True)
        free = c.state.in_((SCHEDULED, READY)) | ((c.state == LEASED) & (c.until <= now))
        named = sa.select(*taken).where(these, queue, free)
        self.named = named.limit(limit).with_for_update(skip_locked=True)
        self.take = update.where(these).values(
            state=LEASED,
            lease=sa.bindparam("token", type_=sa.BigInteger),
            until=later,
            seq=0,
            deaths=c.deaths + sa.bindparam("died", type_=sa.Integer),
        )

        # Everybody locks in one order.
        self.holding = sa.select(c.id, c.lease, c.seq).where(these).order_by(c.id).with_for_update()
        self.extend = update.where(these).values(until=later)

        self.living = sa.select(c.id).where(these, c.state.in_(LIVE)).order_by(c.id).with_for_update()
        gone = now + sa.bindparam("keep", type_=sa.BigInteger)
        self.cancel = update.where(these).values(**ENDED, state=CANCELLED, until=gone)

        self.waiting = {
            state: of(state, c.id).limit(limit).with_for_update(skip_locked=True)
            for state in (READY, SCHEDULED)
        }
        self.old = {
            state: sa.select(c.id)
            .where(*state_is(c, state), c.until <= now)
            .limit(limit)
            .with_for_update(skip_locked=True)
            for state in (DONE, CANCELLED)
        }
