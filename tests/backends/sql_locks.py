"""Locks of a database server, as it tells of them itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gotasks.broker import BrokerURL
from gotasks_sql.address import Address
from gotasks_sql.conformance.tables import schema_of
from gotasks_sql.dialects import dialect_of

_WAITING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%{table}%%'",
    "mysql": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' "
    "AND trx_query LIKE '%%{table}%%'",
}


@contextmanager
def watched(url: str) -> Iterator[Callable[[], bool]]:
    """Whether a statement on the tables of this broker waits for a lock."""
    engine = dialect_of(Address.of(BrokerURL(url))).create_engine()
    question = _WAITING[engine.dialect.name].format(table=schema_of(url).tasks.name)

    def waits() -> bool:
        time.sleep(0.15)  # InnoDB answers from memory as long as it is asked more than ten times a second
        with engine.connect() as connection:
            return bool(connection.exec_driver_sql(question).scalar_one())

    try:
        yield waits
    finally:
        engine.dispose()
