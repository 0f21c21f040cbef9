"""Operations: what is done to tasks, in the way that works on any database: select and lock, then write.

Each takes a connection in a transaction. All times are microseconds since 1970 by the clock of the server (of the
machine, for SQLite), which is only ever read by statements: no clock of a client has a say.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from gotasks.broker import Envelope
from gotasks_sql.rows import PLACES, Claim, Held, Look, Taken, microseconds, unique_hash, unique_key
from gotasks_sql.schema import CANCELLED, DONE, LEASED, READY, SCHEDULED, Schema
from gotasks_sql.statements import ENDED, Statements

#: So many tasks are promoted, removed or forgotten in one go, so that nobody waits for that for long.
SOME = 500


class Operations(ABC):
    """Thread-safe: there is no state but the schema and statements made from it."""

    #: The server's clock, as an expression.
    now: sa.ColumnElement[int]

    #: Whether a claim that finds nothing costs so much more than a look that an idle worker looks.
    looks_first = True

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.tasks = schema.tasks
        self.columns = schema.tasks.c
        self.statements = Statements(schema, self.now)
        #: Statements of `change`, by the columns that they set.
        self._changes: dict[tuple[str, ...], sa.UpdateBase] = {}

    # -- what is particular to a database ---------------------------------------------------------------

    @cached_property
    def _new(self) -> sa.Insert:
        return self.insert_new()

    @abstractmethod
    def insert_new(self) -> sa.Insert:
        """An INSERT that leaves out, without an error, rows whose id or unique key is there already."""

    def change(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Set columns of rows that are there and locked. All have the same keys, `id` among them."""
        names = tuple(name for name in rows[0] if name != "id")
        if names not in self._changes:
            values: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in names}
            self._changes[names] = (
                sa.update(self.tasks).where(self.columns.id == sa.bindparam("the_id")).values(values)
            )
        connection.execute(
            self._changes[names],
            [{"the_id": row["id"], **{f"new_{name}": row[name] for name in names}} for row in rows],
        )

    def places(self, connection: sa.Connection, now: int, count: int) -> int:
        """The first of `count` places, each behind all that were given away before. A place is a moment's."""
        return now * PLACES

    def clock(self, connection: sa.Connection) -> int:
        """The server's clock."""
        return int(connection.execute(self.statements.clock).scalar_one())

    # -- new tasks --------------------------------------------------------------------------------------

    def enqueue(self, connection: sa.Connection, queue: str, envelopes: Sequence[Envelope]) -> set[str]:
        """Store those whose id and unique key are new. Returns the ids that were stored. No id comes twice."""
        now = self.clock(connection)
        place = self.places(connection, now, len(envelopes))
        mark = secrets.randbits(62)  # by which we know our own rows again; a claim sets it to 0
        rows = []
        for number, each in enumerate(envelopes):
            due = now + microseconds(each.delay) if each.delay > 0 else None
            key = each.unique
            rows.append(
                {
                    "id": each.id,
                    "queue": queue,
                    "state": READY if due is None else SCHEDULED,
                    "rank": -each.priority,
                    # When it's due it goes behind all that came before that moment.
                    "place": (place if due is None else due * PLACES) + number,
                    "until": due,
                    "seq": mark,
                    "unique_hash": None if key is None else unique_hash(key),
                    "unique_key": None if key is None else unique_key(key),
                    "body": each.body,
                }
            )
        if connection.execute(self._new, rows).rowcount == len(rows):
            return {each.id for each in envelopes}
        found = connection.execute(self.statements.marks, {"ids": [each.id for each in envelopes]})
        return {each.id for each in found if each.seq == mark}

    def known(self, connection: sa.Connection, envelopes: Sequence[Envelope]) -> dict[str, str]:
        """As `find`; removes records whose time is over, so that what isn't in the answer may be stored now."""
        there, over = self._find(connection, envelopes)
        if over:
            connection.execute(self.statements.delete_over, {"ids": over})
        return there

    def find(self, connection: sa.Connection, envelopes: Sequence[Envelope]) -> dict[str, str]:
        """Which of these are there, by id or by unique key → the id that is there."""
        return self._find(connection, envelopes)[0]

    def _find(
        self, connection: sa.Connection, envelopes: Sequence[Envelope]
    ) -> tuple[dict[str, str], list[str]]:
        there: dict[str, str] = {}
        hashes = {each.id: unique_hash(each.unique) for each in envelopes if each.unique is not None}
        if hashes:
            rows = connection.execute(self.statements.known_keys, {"hashes": list(set(hashes.values()))})
            holders = {bytes(row.unique_hash): row.id for row in rows}
            there |= {task_id: holders[each] for task_id, each in hashes.items() if each in holders}
        rows = connection.execute(self.statements.known_ids, {"ids": [each.id for each in envelopes]})
        found = {row.id: row.over for row in rows}
        there |= {task_id: task_id for task_id, over in found.items() if not over}
        return there, [task_id for task_id, over in found.items() if over]

    # -- leases -----------------------------------------------------------------------------------------

    def look(self, connection: sa.Connection, queue: str) -> Look:
        """Whether there is something to claim, or when."""
        now, due, over, ready = connection.execute(self.statements.look, {"queue": queue}).one()
        return Look.of(now, due, over, ready=bool(ready))

    def promote(self, connection: sa.Connection, queue: str) -> None:
        """Make ready what is due, the earliest first, some of it."""
        ids = connection.execute(self.statements.due, {"queue": queue, "limit": SOME}).scalars().all()
        if ids:
            connection.execute(self.statements.promote, {"ids": ids})

    def claim(
        self,
        connection: sa.Connection,
        queue: str,
        *,
        limit: int,
        lease: int,
        token: int,
    ) -> Claim:
        """Take what is ready, due, or was left behind by a lease, for `lease` microseconds."""
        seen = self.look(connection, queue)
        if not seen.something:
            return Claim([], seen.next_in)
        if seen.due:
            self.promote(connection, queue)
        found: list[Any] = []
        if seen.over:
            ids = (
                connection.execute(self.statements.over, {"queue": queue, "limit": 2 * limit}).scalars().all()
            )
            for some in (ids[:limit], ids[limit:]):  # the second where another has locked some of the first
                if some and len(found) < limit:
                    found += connection.execute(self.statements.left, {"queue": queue, "ids": some})
        found += connection.execute(self.statements.ready, {"queue": queue, "limit": limit})
        found.sort(key=lambda row: row.rank)  # stable: within a rank what a lease left behind goes first
        return Claim(self._take(connection, found[:limit], lease, token))

    def claim_ids(
        self,
        connection: sa.Connection,
        queue: str,
        ids: Collection[str],
        *,
        limit: int,
        lease: int,
        token: int,
    ) -> list[Taken]:
        """Take these, due or not, unless they are held."""
        params = {"queue": queue, "ids": list(ids), "limit": limit}
        return self._take(connection, connection.execute(self.statements.named, params).all(), lease, token)

    def _take(self, connection: sa.Connection, rows: Sequence[Any], lease: int, token: int) -> list[Taken]:
        for died in (False, True):
            ids = [row.id for row in rows if (row.state == LEASED) is died]
            if ids:
                params = {"ids": ids, "lasting": lease, "token": token, "died": int(died)}
                connection.execute(self.statements.take, params)
        return [
            Taken(row.id, bytes(row.body), row.deaths + (row.state == LEASED), row.rank, row.unique_key)
            for row in rows
        ]

    def extend(self, connection: sa.Connection, helds: Sequence[Held], *, lease: int) -> set[str]:
        """Make leases last from now. Returns the ids whose lease holds."""
        ids = [each.id for each, _ in self._holding(connection, helds)]
        if ids:
            connection.execute(self.statements.extend, {"ids": ids, "lasting": lease})
        return set(ids)

    # -- writes under a lease ---------------------------------------------------------------------------

    def checkpoint(self, connection: sa.Connection, helds: Sequence[Held]) -> set[str]:
        """Replace bodies. Returns the ids whose lease holds."""
        held = self._held(connection, helds)
        if held:
            self.change(
                connection,
                [{"id": each.id, "body": each.body, "seq": each.seq, "deaths": 0} for each in held],
            )
        return {each.id for each in held}

    def ack(self, connection: sa.Connection, helds: Sequence[Held], *, keep: int) -> set[str]:
        """End tasks; keep their records for `keep` microseconds. Returns the ids whose lease held."""
        held = self._held(connection, helds)
        if held and keep > 0:
            ended = {**ENDED, "state": DONE, "until": self.clock(connection) + keep}
            self.change(connection, [{"id": each.id, "body": each.body, **ended} for each in held])
        elif held:
            connection.execute(self.statements.delete, {"ids": [each.id for each in held]})
        return {each.id for each in held}

    def release(self, connection: sa.Connection, helds: Sequence[Held], *, queue: str) -> set[str]:
        """Put tasks of `queue` back: in front, or to the back of another queue. Returns the ids whose lease held."""
        held = self._held(connection, helds)
        if held:
            now = self.clock(connection)
            place = self.places(connection, now, len(held))
            self.change(connection, released(held, queue, now, place))
        return {each.id for each in held}

    def _held(self, connection: sa.Connection, helds: Sequence[Held]) -> list[Held]:
        """Those whose lease holds and whose write isn't older than the last one, locked, in their order."""
        return [each for each, seq in self._holding(connection, helds) if seq <= each.seq]

    def _holding(self, connection: sa.Connection, helds: Sequence[Held]) -> list[tuple[Held, int]]:
        """Those whose lease holds, locked, in their order, each with the number of its last write."""
        rows = connection.execute(self.statements.holding, {"ids": [each.id for each in helds]})
        found = {row.id: row for row in rows}
        return [
            (each, found[each.id].seq)
            for each in helds
            if each.id in found and found[each.id].lease == each.token
        ]

    # -- by anyone --------------------------------------------------------------------------------------

    def cancel(self, connection: sa.Connection, ids: Collection[str], *, keep: int) -> list[str]:
        """End tasks that live. Returns their ids."""
        found = list(connection.execute(self.statements.living, {"ids": list(ids)}).scalars())
        if found and keep > 0:
            connection.execute(self.statements.cancel, {"ids": found, "keep": keep})
        elif found:
            connection.execute(self.statements.delete, {"ids": found})
        return found

    def purge(self, connection: sa.Connection, queue: str, *, most: int) -> int:
        """Remove what is ready or scheduled, `most` at the most. Returns how many."""
        removed = 0
        for state in (READY, SCHEDULED):
            params = {"queue": queue, "limit": most - removed}
            removed += self._remove(connection, self.statements.waiting[state], params)
        return removed

    def forget(self, connection: sa.Connection) -> int:
        """Remove records whose time is over, some of them. Returns how many."""
        return sum(
            self._remove(connection, self.statements.old[state], {"limit": SOME})
            for state in (DONE, CANCELLED)
        )

    def _remove(self, connection: sa.Connection, which: sa.Select[Any], params: Mapping[str, Any]) -> int:
        ids = connection.execute(which, params).scalars().all()
        return connection.execute(self.statements.delete, {"ids": ids}).rowcount if ids else 0


def released(helds: Sequence[Held], queue: str, now: int, place: int) -> list[dict[str, Any]]:
    """The columns of tasks of `queue` that are put back, `place` being free for the first of them."""
    rows = []
    for number, each in enumerate(helds):
        target = each.target or queue
        at = place + number if target != queue else -place - number
        due = now + each.delay if each.delay > 0 else None
        rows.append(
            {
                "id": each.id,
                "queue": target,
                "state": READY if due is None else SCHEDULED,
                "place": at if due is None else due * PLACES + number,
                "until": due,
                "lease": None,
                "deaths": 0,
                "body": each.body,
            }
        )
    return rows
