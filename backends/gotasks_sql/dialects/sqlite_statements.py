"""SQLite's statements: to run one costs it less than to hand it over, so what is asked often is simple ones."""

from __future__ import annotations

from gotasks_sql.rows import PLACES

CLOCK = "(CAST((julianday('now') - 2440587.5) * 86400000 + 0.5 AS INTEGER) * 1000)"

# An index is taken only where its condition is in the query, word for word: see `schema`.
_LOOK = """
SELECT {clock},
  (SELECT min(until) FROM {tasks} WHERE queue = :queue AND state = 0 AND state IN (0, 2)),
  (SELECT min(until) FROM {tasks} WHERE queue = :queue AND state = 2 AND state IN (0, 2)),
  EXISTS (SELECT 1 FROM {tasks} WHERE queue = :queue AND state = 1)
"""

_OVER = """
SELECT id, body, deaths + 1, rank, unique_key FROM {tasks}
WHERE queue = :queue AND state = 2 AND state IN (0, 2) AND until <= {clock}
ORDER BY rank, until, place LIMIT :limit
"""

_READY = """
SELECT id, body, deaths, rank, unique_key FROM {tasks}
WHERE queue = :queue AND state = 1 ORDER BY rank, place LIMIT :limit
"""

_TAKE = """
UPDATE {tasks} SET state = 2, lease = :token, until = :until, seq = 0, deaths = :deaths WHERE id = :id
"""

_EXTEND = "UPDATE {tasks} SET until = {clock} + :lease WHERE id = :id AND lease = :token"

_HELD = "WHERE id = :id AND lease = :token AND seq <= :seq"

_CHECKPOINT = "UPDATE {tasks} SET body = :body, seq = :seq, deaths = 0 {held}"

_ACK = """
UPDATE {tasks} SET body = :body, state = 3, until = {clock} + :keep, lease = NULL, deaths = 0,
  unique_hash = NULL, unique_key = NULL
{held}
"""

_ACK_AND_REMOVE = "DELETE FROM {tasks} {held}"

_RELEASE = """
UPDATE {tasks} SET queue = :queue, state = :state, place = :place, until = :until, body = :body,
  lease = NULL, deaths = 0
{held}
"""

# Two calls may come in one millisecond. With one writer at a time a counter keeps nobody waiting.
_FORWARD = "UPDATE {version} SET last_place = max(last_place, {clock} * {places}) + :count"
_LAST_PLACE = "SELECT last_place FROM {version}"


class SQLiteStatements:
    """Those for one pair of tables, as the driver takes them."""

    def __init__(self, tasks: str, version: str) -> None:
        """`tasks`, `version`: the names of the tables."""

        def made(text: str) -> str:
            return text.format(tasks=tasks, version=version, clock=CLOCK, held=_HELD, places=PLACES)

        self.look = made(_LOOK)
        self.over = made(_OVER)
        self.ready = made(_READY)
        self.take = made(_TAKE)
        self.extend = made(_EXTEND)
        self.checkpoint = made(_CHECKPOINT)
        self.ack = made(_ACK)
        self.ack_and_remove = made(_ACK_AND_REMOVE)
        self.release = made(_RELEASE)
        self.forward = made(_FORWARD)
        self.last_place = made(_LAST_PLACE)
