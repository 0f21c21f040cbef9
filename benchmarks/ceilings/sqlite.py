"""sqlite3 with WAL: insert, and acquire then delete, by 1, 10 and 100 rows a transaction; both kinds of durability."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from functools import partial

from benchmarks.ceilings.kit import BODY, per_second
from benchmarks.peers.kit import setup
from benchmarks.protocol import reply

#: Rows for each size of batch.
_ROWS = {1: 1_000, 10: 5_000, 100: 20_000}


def answer(_: Mapping[str, object]) -> Mapping[str, float]:
    """Rows a second by name. FULL survives a power cut, NORMAL the end of the process."""
    found = {}
    with contextlib.closing(sqlite3.connect(setup.url.removeprefix("sqlite:///"))) as connection:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE ceiling (id INTEGER PRIMARY KEY, taken INTEGER, body BLOB)")
        connection.execute("CREATE INDEX ready ON ceiling (id) WHERE NOT taken")
        for level in ("FULL", "NORMAL"):
            connection.execute(f"PRAGMA synchronous = {level}")
            for batch, rows in _ROWS.items():
                found[f"insert by {batch}, {level}"] = per_second(partial(_insert, connection, batch, rows))
                found[f"acquire and delete by {batch}, {level}"] = per_second(
                    partial(_drain, connection, batch)
                )
    return found


def _insert(connection: sqlite3.Connection, batch: int, rows: int) -> int:
    for _ in range(rows // batch):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO ceiling (taken, body) VALUES (0, ?)", [(BODY,)] * batch)
        connection.execute("COMMIT")
    return rows


def _drain(connection: sqlite3.Connection, batch: int) -> int:
    rows = 0
    while True:
        connection.execute("BEGIN IMMEDIATE")
        ids = connection.execute(
            "SELECT id, body FROM ceiling WHERE NOT taken ORDER BY id LIMIT ?", (batch,)
        ).fetchall()
        connection.executemany("UPDATE ceiling SET taken = 1 WHERE id = ?", [(row[0],) for row in ids])
        connection.execute("COMMIT")
        if not ids:
            return rows
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("DELETE FROM ceiling WHERE id = ?", [(row[0],) for row in ids])
        connection.execute("COMMIT")
        rows += len(ids)


if __name__ == "__main__":
    reply(answer)
