"""The tables behind a broker URL, reached beside the broker."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlencode

import sqlalchemy as sa

from gotasks.broker import BrokerURL
from gotasks_sql.address import Address
from gotasks_sql.broker import SQLBroker
from gotasks_sql.dialects import dialect_of
from gotasks_sql.schema import Schema


def with_params(url: str, **params: str) -> str:
    """The URL with these parameters, and all others as they were."""
    return f"{url.partition('?')[0]}?{urlencode({**BrokerURL(url).params, **params})}"


def schema_of(url: str) -> Schema:
    """The tables that the broker of this URL works with."""
    address = Address.of(BrokerURL(url))
    return Schema(address.prefix, address.schema, address.dialect)


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """A connection in a transaction, committed at the end of the block."""
    address = Address.of(BrokerURL(url))
    dialect = dialect_of(address)
    engine = dialect.create_engine()
    try:
        with dialect.transaction(engine) as connection:
            yield connection
    finally:
        engine.dispose()


def make(url: str) -> None:
    """Make the tables, unless they are there."""
    broker = SQLBroker.from_url(BrokerURL(url))
    try:
        broker.migrate()
    finally:
        broker.close()


def put_raw(url: str, queue: str, data: bytes) -> None:
    """A row as somebody would insert it who knows the table and nothing else."""
    make(url)
    tasks = schema_of(url).tasks
    row = {
        "id": f"by-hand-{secrets.token_hex(8)}",
        "queue": queue,
        "state": 1,
        "rank": 0,
        "place": 0,
        "body": data,
    }
    with connected(url) as connection:
        connection.execute(sa.insert(tasks).values(row))


def dump(url: str) -> Mapping[str, int]:
    """The tasks that are stored: id → bytes of the body, and some for the row."""
    make(url)
    tasks = schema_of(url).tasks
    statement = sa.select(tasks.c.id, sa.func.length(tasks.c.body), sa.func.length(tasks.c.unique_key))
    with connected(url) as connection:  # without the row that is no task
        statement = statement.where(tasks.c.id != "")
        return {row[0]: 100 + row[1] + (row[2] or 0) for row in connection.execute(statement)}
