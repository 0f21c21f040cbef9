"""What a worker says when it starts of a server's settings with which less is kept, or more and more is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from gotasks.conformance.adapter import MissingHook
from gotasks.discovery import open_broker
from gotasks_sql.broker import SQLBroker
from tests.backends.contract import eventually
from tests.servers import Servers
from tests.sql_server import PrivatePostgreSQL


@pytest.fixture
def postgresql(servers: Servers) -> Iterator[PrivatePostgreSQL]:
    """A server whose settings are the test's."""
    try:
        private = PrivatePostgreSQL()
    except MissingHook as error:
        servers.missing("postgresql", str(error))
    with private as server:
        yield server


@pytest.mark.timeout(120)
def test_settings_of_postgresql_that_are_off(postgresql: PrivatePostgreSQL) -> None:
    broker = open_broker(postgresql.url)
    assert list(broker.warnings()) == []
    names = ("synchronous_commit", "fsync", "autovacuum")
    assert isinstance(broker, SQLBroker)
    with broker._database.engine.connect() as connection:  # such a change takes no transaction
        for name in names:
            connection.exec_driver_sql(f"ALTER SYSTEM SET {name} = off")
        connection.execute(sa.select(sa.func.pg_reload_conf()))
    eventually(lambda: len(broker.warnings()) == len(names), what="all are told")
    for name, warning in zip(names, broker.warnings(), strict=True):
        assert f"{name} is off" in warning
        assert "Set it to on" in warning
    broker.close()
