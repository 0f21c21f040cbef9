"""psycopg 3 in autocommit: insert, and SKIP LOCKED acquire then delete, by 1, 10 and 100 rows a statement."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import psycopg

from benchmarks.ceilings.kit import BODY, per_second
from benchmarks.peers.kit import setup
from benchmarks.protocol import reply

_ACQUIRE = """
    UPDATE ceiling SET taken = true WHERE id = ANY (ARRAY(
        SELECT id FROM ceiling WHERE NOT taken ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED)) RETURNING id, body
"""
#: Rows for each size of batch.
_ROWS = {1: 1_000, 10: 5_000, 100: 20_000}


def answer(_: Mapping[str, object]) -> Mapping[str, float]:
    """Rows a second by name."""
    found = {}
    with psycopg.connect(setup.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE ceiling (id bigserial PRIMARY KEY, taken boolean, body bytea)")
        connection.execute("CREATE INDEX ON ceiling (id) WHERE NOT taken")
        for batch, rows in _ROWS.items():
            found[f"insert by {batch}"] = per_second(partial(_insert, connection, batch, rows))
            found[f"acquire and delete by {batch}"] = per_second(partial(_drain, connection, batch))
    return found


def _insert(connection: psycopg.Connection, batch: int, rows: int) -> int:
    for _ in range(rows // batch):
        connection.execute(
            "INSERT INTO ceiling (taken, body) SELECT false, unnest(%s::bytea[])", ([BODY] * batch,)
        )
    return rows


def _drain(connection: psycopg.Connection, batch: int) -> int:
    rows = 0
    while taken := connection.execute(_ACQUIRE, (batch,)).fetchall():
        connection.execute("DELETE FROM ceiling WHERE id = ANY (%s)", ([row[0] for row in taken],))
        rows += len(taken)
    return rows


if __name__ == "__main__":
    reply(answer)
