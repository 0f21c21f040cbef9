"""PostgreSQL's statements: what is asked often is one of them each."""

from __future__ import annotations

import re

#: The parameters of the statements, and their types. They go to the driver as they are, in binary form: arrays of
#: text cost it and the server several times as much.
_TYPES = {
    **dict.fromkeys(("ids", "targets"), "text[]"),
    **dict.fromkeys(("tokens", "seqs", "delays", "numbers"), "bigint[]"),
    **dict.fromkeys(("bodies", "hashes", "keys"), "bytea[]"),
    **dict.fromkeys(("body", "hash", "key"), "bytea"),
    **dict.fromkeys(("limit", "token", "lease", "keep", "delay", "place", "since"), "bigint"),
    **dict.fromkeys(("id", "queue", "channel"), "text"),
    "rank": "smallint",
    "ranks": "smallint[]",
    "promoted": "boolean",
}
_PARAM = re.compile(r"(?<!:):(\w+)")

#: The parameters for one new task → those for many, which are arrays.
NEW = {"id": "ids", "delay": "delays", "rank": "ranks", "hash": "hashes", "key": "keys", "body": "bodies"}

CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

_ENQUEUE = """
WITH stored AS (
  INSERT INTO {tasks} (id, queue, state, rank, place, until, unique_hash, unique_key, body)
  SELECT id, :queue, CASE WHEN delay > 0 THEN 0 ELSE 1 END, rank,
         (moment + delay) * 1024 + number - 1, CASE WHEN delay > 0 THEN moment + delay END, hash, key, body
  FROM (SELECT {clock} AS moment) AS clock, {new} AS new (id, delay, rank, hash, key, body, number)
  ORDER BY id
  ON CONFLICT DO NOTHING
  RETURNING id
)
SELECT id, NULL FROM stored
UNION ALL
SELECT NULL, pg_notify(:channel, :queue)::text WHERE :channel <> '' AND EXISTS (SELECT FROM stored)
"""

_MANY_NEW = "unnest(:ids, :delays, :ranks, :hashes, :keys, :bodies) WITH ORDINALITY"
_ONE_NEW = "(VALUES (:id, :delay, :rank, :hash, :key, :body, 1))"  # by arrays it costs half as much again

# What a lease left behind goes first within its rank. The inner selects lock what they find, each at most :limit; what
# isn't taken of it is free again at the end of the statement, so none is asked that can't give any. It begins at a
# `Start`. The last row has the next one, if all that was wanted was found, and nothing that is ready stands before it.
_CLAIM = """
WITH clock AS MATERIALIZED (SELECT {clock} AS moment),
due AS MATERIALIZED (
  SELECT FROM {tasks}
  WHERE queue = :queue AND state = 0 AND until >= :since AND until <= (SELECT moment FROM clock)
    AND NOT :promoted LIMIT 1
),
over AS MATERIALIZED (
  SELECT id, rank, 0 AS turn, until AS ended, place FROM {tasks}
  WHERE id IN (
    SELECT id FROM {tasks}
    WHERE queue = :queue AND state = 2 AND until >= :since AND until <= (SELECT moment FROM clock)
    ORDER BY queue, state, until LIMIT 10000
  ) AND state = 2 AND until <= (SELECT moment FROM clock) AND NOT EXISTS (SELECT FROM due)
  ORDER BY rank, until, place LIMIT :limit FOR UPDATE SKIP LOCKED
),
higher AS MATERIALIZED (
  SELECT id, rank, 1 AS turn, 0::bigint AS ended, place FROM {tasks}
  WHERE queue = :queue AND state = 1 AND rank < :rank AND NOT EXISTS (SELECT FROM due)
  ORDER BY queue, state, rank, place LIMIT :limit FOR UPDATE SKIP LOCKED
),
front AS MATERIALIZED (
  SELECT id, rank, 1 AS turn, 0::bigint AS ended, place FROM {tasks}
  WHERE queue = :queue AND state = 1 AND rank = :rank AND place < 0 AND NOT EXISTS (SELECT FROM due)
    AND (SELECT count(*) FROM higher) < :limit
  ORDER BY queue, state, rank, place LIMIT :limit FOR UPDATE SKIP LOCKED
),
behind AS MATERIALIZED (
  SELECT id, rank, 1 AS turn, 0::bigint AS ended, place FROM {tasks}
  WHERE queue = :queue AND state = 1 AND (rank, place) >= (:rank, :place) AND NOT EXISTS (SELECT FROM due)
    AND (SELECT count(*) FROM higher) + (SELECT count(*) FROM front) < :limit
  ORDER BY queue, state, rank, place LIMIT :limit FOR UPDATE SKIP LOCKED
),
chosen AS MATERIALIZED (
  SELECT id, rank, turn, place, row_number() OVER (ORDER BY rank, turn, ended, place) AS number
  FROM (
    SELECT * FROM over UNION ALL SELECT * FROM higher UNION ALL SELECT * FROM front UNION ALL SELECT * FROM behind
  ) AS found
  ORDER BY rank, turn, ended, place LIMIT :limit
),
taken AS (
  UPDATE {tasks} AS task
  SET state = 2, lease = :token, until = (SELECT moment FROM clock) + :lease, seq = 0,
      deaths = deaths + CASE WHEN state = 2 THEN 1 ELSE 0 END
  FROM chosen WHERE task.id = chosen.id
  RETURNING task.id, body, deaths, task.rank, unique_key, number
)
SELECT id, body, deaths, rank, unique_key, number, NULL AS place, NULL AS seen FROM taken
UNION ALL
SELECT NULL, NULL, (SELECT count(*) FROM due)::int, final.rank, NULL,
  CASE WHEN :since = 0 AND NOT EXISTS (SELECT FROM chosen) THEN (
    SELECT min(moment) FROM (
      SELECT min(until) AS moment FROM {tasks} WHERE queue = :queue AND state = 0
      UNION ALL
      SELECT min(until) FROM {tasks} WHERE queue = :queue AND state = 2
    ) AS moments
  ) - moment END,
  final.place, CASE WHEN EXISTS (SELECT FROM over) THEN :since ELSE moment END
FROM clock LEFT JOIN chosen AS final ON final.number = :limit AND final.turn = 1
"""

_PROMOTE = """
UPDATE {tasks} SET state = 1, until = NULL
WHERE id IN (
  SELECT id FROM {tasks} WHERE queue = :queue AND state = 0 AND until <= (SELECT {clock})
  ORDER BY queue, state, until LIMIT :limit FOR UPDATE SKIP LOCKED
)
"""

_EXTEND = """
UPDATE {tasks} AS task SET until = {clock} + :lease
FROM unnest(:ids, :tokens) AS held (id, token)
WHERE task.id = held.id AND task.lease = held.token
RETURNING task.id
"""

_CHECKPOINT = """
UPDATE {tasks} AS task SET body = held.body, seq = held.seq, deaths = 0
FROM unnest(:ids, :tokens, :seqs, :bodies) AS held (id, token, seq, body)
WHERE task.id = held.id AND task.lease = held.token AND task.seq <= held.seq
RETURNING task.id
"""

_ACK = """
UPDATE {tasks} AS task
SET body = held.body, state = 3, until = {clock} + :keep, lease = NULL, deaths = 0,
    unique_hash = NULL, unique_key = NULL
FROM unnest(:ids, :tokens, :seqs, :bodies) AS held (id, token, seq, body)
WHERE task.id = held.id AND task.lease = held.token AND task.seq <= held.seq
RETURNING task.id
"""

_ACK_AND_REMOVE = """
DELETE FROM {tasks} AS task
USING unnest(:ids, :tokens, :seqs) AS held (id, token, seq)
WHERE task.id = held.id AND task.lease = held.token AND task.seq <= held.seq
RETURNING task.id
"""

_RELEASE = """
WITH clock AS MATERIALIZED (SELECT {clock} AS moment),
back AS (
  UPDATE {tasks} AS task
  SET queue = held.target, body = held.body, deaths = 0, lease = NULL,
      state = CASE WHEN delay > 0 THEN 0 ELSE 1 END,
      until = CASE WHEN delay > 0 THEN moment + delay END,
      place = CASE WHEN delay > 0 THEN (moment + delay) * 1024 + number
                   WHEN held.target = :queue THEN -moment * 1024 - number
                   ELSE moment * 1024 + number END
  FROM clock,
       unnest(:ids, :tokens, :seqs, :bodies, :delays, :targets, :numbers)
         AS held (id, token, seq, body, delay, target, number)
  WHERE task.id = held.id AND task.lease = held.token AND task.seq <= held.seq
  RETURNING task.id, held.target
)
SELECT id, NULL FROM back
UNION ALL
SELECT NULL, pg_notify(:channel, target)::text FROM (SELECT DISTINCT target FROM back) AS targets
WHERE :channel <> ''
"""


class PostgreSQLStatements:
    """Those for one table, as the driver takes them."""

    def __init__(self, tasks: str) -> None:
        """`tasks`: the name of the table, as SQL has it."""

        def made(text: str, **parts: str) -> str:
            text = text.format(tasks=tasks, clock=CLOCK, **parts)
            return _PARAM.sub(lambda found: f"%({found[1]})b::{_TYPES[found[1]]}", text)

        self.enqueue_one = made(_ENQUEUE, new=_ONE_NEW)
        self.enqueue_many = made(_ENQUEUE, new=_MANY_NEW)
        self.claim = made(_CLAIM)
        self.promote = made(_PROMOTE)
        self.extend = made(_EXTEND)
        self.checkpoint = made(_CHECKPOINT)
        self.ack = made(_ACK)
        self.ack_and_remove = made(_ACK_AND_REMOVE)
        self.release = made(_RELEASE)
