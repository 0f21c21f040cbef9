"""What a backlog and many tasks do to the table in PostgreSQL: plans, the cost of a claim, sizes.

    python benchmarks/sql_table.py postgresql+psycopg://postgres@127.0.0.1/postgres

It works with tables of its own, which it drops at the end.
"""

from __future__ import annotations

import argparse
import statistics
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa

from gotasks.broker import Broker, BrokerURL, Envelope, Write
from gotasks.discovery import open_broker
from gotasks_sql.address import Address
from gotasks_sql.dialects.postgresql import PostgreSQL
from gotasks_sql.dialects.postgresql_starts import FIRST
from gotasks_sql.dialects.postgresql_statements import PostgreSQLStatements
from gotasks_sql.schema import Schema

BODY = b"x" * 250
SMALL, LARGE, BATCH = "small", "large", 10


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--backlog", type=int, default=1_000_000)
    parser.add_argument("--through", type=int, default=500_000)
    options = parser.parse_args()
    prefix = f"bench_{uuid.uuid4().hex[:8]}_"
    url = f"{options.url}{'&' if '?' in options.url else '?'}prefix={prefix}"
    address = Address.of(BrokerURL(url))
    schema = Schema(prefix, address.schema, address.dialect)
    engine = sa.create_engine(address.url, isolation_level="AUTOCOMMIT")
    broker = open_broker(url)
    try:
        broker.migrate()
        backlog(broker, engine, url, options.backlog)
        bloat(broker, engine, schema, options.through)
    finally:
        broker.close()
        with engine.connect() as connection:
            schema.metadata.drop_all(connection)


def backlog(broker: Broker, engine: sa.Engine, url: str, size: int) -> None:
    """Claims from a queue of 10,000 and from a large one, in turn; then the plans."""
    name = PostgreSQL(Address.of(BrokerURL(url))).tasks.name
    with engine.connect() as connection:
        for queue, count in ((SMALL, 10_000), (LARGE, size)):
            connection.exec_driver_sql(
                f"INSERT INTO {name} (id, queue, state, rank, place, body) SELECT '{queue}-' || g, '{queue}', 1, 0, "  # noqa: S608 - names of our own
                f"g::bigint * 1024, decode(repeat('78', {len(BODY)}), 'hex') FROM generate_series(1, {count}) AS g"
            )
    times: dict[str, list[float]] = {SMALL: [], LARGE: []}
    for _ in range(80):
        for queue, taken in times.items():
            begin = time.perf_counter()
            leases = broker.acquire(queue, limit=BATCH, wait=0, lease_for=600)
            taken.append(time.perf_counter() - begin)
            broker.ack([Write(lease=each, body=BODY, seq=1) for each in leases], keep_for=0)
    small, large = (statistics.median(taken) * 1e3 for taken in times.values())
    print(
        f"claim of {BATCH}: {small:.2f} ms at 10,000 ready, {large:.2f} ms at {size:,}: {large / small:.2f} x"
    )
    for line in plan(engine, url, LARGE):
        print("   ", line)


def plan(engine: sa.Engine, url: str, queue: str) -> list[str]:
    """How PostgreSQL carries out a claim that looks from the start, with times."""
    claim = PostgreSQLStatements(PostgreSQL(Address.of(BrokerURL(url))).tasks.name).claim
    explain = f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {claim}"
    params = {"queue": queue, "limit": BATCH, "lease": 1, "token": 1, "promoted": False, **FIRST._asdict()}
    with engine.connect() as connection:
        return [str(row[0]) for row in connection.exec_driver_sql(explain, params)]


def bloat(broker: Broker, engine: sa.Engine, schema: Schema, through: int) -> None:
    """`through` tasks, 1,000 at a time: enqueued, claimed, checkpointed, acked, their records kept for a second."""
    broker.purge(SMALL)
    broker.purge(LARGE)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"VACUUM FULL {schema.tasks.name}")
    done = 0
    for part in (0, *[through // 5] * 5):
        begin = time.perf_counter()
        with ThreadPoolExecutor(4) as pool:
            done += sum(pool.map(lambda _: work(broker), range(part // 1000)))
        seconds = time.perf_counter() - begin
        rate = f", {part / seconds:,.0f} tasks/s" if part else ""
        print(f"after {done:,} tasks: {', '.join(sizes(engine, schema))}{rate}")


def work(broker: Broker) -> int:
    """A thousand tasks from enqueue to ack."""
    queue = uuid.uuid4().hex
    broker.enqueue([Envelope(id=uuid.uuid4().hex, queue=queue, body=BODY) for _ in range(1000)])
    done = 0
    while leases := broker.acquire(queue, limit=100, wait=0, lease_for=30):
        broker.checkpoint([Write(lease=each, body=BODY, seq=1) for each in leases])
        broker.ack([Write(lease=each, body=BODY, seq=2) for each in leases], keep_for=1)
        done += len(leases)
    return done


def sizes(engine: sa.Engine, schema: Schema) -> Iterator[str]:
    """The table and its indexes, in MiB."""
    with engine.connect() as connection:
        names = [schema.tasks.name, *sorted(str(index.name) for index in schema.tasks.indexes)]
        for name in names:
            size = connection.execute(sa.select(sa.func.pg_relation_size(name))).scalar_one()
            yield f"{name.rpartition('_')[2]} {size / 2**20:.1f} MiB"


if __name__ == "__main__":
    main()
