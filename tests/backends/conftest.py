"""Fixtures for the tests that run on a broker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gotasks.broker import Broker, BrokerURL, Capability
from gotasks.conformance.strict import StrictBroker
from gotasks.discovery import open_broker
from gotasks_rabbitmq import RabbitBroker
from gotasks_sql.broker import SQLBroker
from gotasks_sql.conformance.tables import schema_of
from tests.backends.engine import Engine, short_lease
from tests.conftest import BACKENDS, DATABASES


@pytest.fixture(autouse=True)
def _settings_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell sets for gotasks must not change what a test shows."""
    for name in os.environ:
        if name.startswith("GOTASKS_") and not name.startswith(("GOTASKS_TEST_", "GOTASKS_REQUIRE")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _idle_workers_stop_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle worker's stop waits for its `acquire`: a second, a hundred times over. The rest is as it is."""
    if request.path.name.startswith("test_engine"):
        monkeypatch.setattr("gotasks.worker.fetcher.WAIT", 0.1)


@pytest.fixture(autouse=True)
def _what_a_test_needs(request: pytest.FixtureRequest) -> None:
    """Skip a test on a backend that doesn't claim what `@pytest.mark.needs(…)` names."""
    marker = request.node.get_closest_marker("needs")
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if marker is None or "rabbitmq" not in (params.get("broker_url"), params.get("engine")):
        return
    claims = RabbitBroker.capabilities
    for name in marker.args:
        there = Capability.HANDOFF not in claims if name == "IN_PLACE" else Capability[name] in claims
        if not there:
            pytest.skip(f"RabbitMQ has no {name}")


@pytest.fixture
def broker(broker_url: str) -> Iterator[Broker]:
    """An empty broker, on each backend in turn."""
    broker = open_broker(broker_url)
    yield broker
    broker.close()


@pytest.fixture
def short(broker_url: str) -> float:
    """A lease that a test can wait for, in seconds: long enough for a call of the backend on a busy machine."""
    return short_lease(broker_url)


#: Brokers that the engine must work with, and how its tasks are run there: by a worker, or by `App.drain`. Those in
#: memory object to whatever the contract doesn't allow. These tests are about what the engine makes of a broker, so
#: each kind of broker is here once: one that works by scripts, one by a statement a call, one by transactions of
#: several. MariaDB is of the same kind as SQLite, with which it shares that code, and has no turn of its own here; like
#: all others it has one with `worked` and with all that takes `broker` or `broker_url`. RabbitMQ is of its own:
#: a checkpoint hands the task back, its leases have no time, and it keeps no records, unless another broker does.
ENGINES = {
    "memory": ("memory://", "worker"),
    "redis": ("redis_url", "drain"),
    "postgresql": ("postgresql_url", "worker"),
    "sqlite": ("sqlite_url", "drain"),
    "handoff": ("memory://?handoff=true", "worker"),
    "no atomic move": ("memory://?without=ATOMIC_MOVE", "worker"),
    "no records": ("memory://?without=RECORDS,BROWSE", "worker"),
    "memory, drained": ("memory://", "drain"),
}
if "rabbitmq" in BACKENDS:
    ENGINES |= {"rabbitmq": ("rabbitmq_url", "worker"), "recorded": ("recorded_url", "drain")}


@contextmanager
def engine_on(url: str, *, how: str = "worker") -> Iterator[Engine]:
    """An engine; one in memory is on a broker that objects, and whatever it objected to fails the test."""
    if not url.startswith("memory"):
        engine = Engine(url, how=how)
        yield engine
        engine.close()
        return
    strict = StrictBroker(open_broker(url))
    engine = Engine(strict, how=how)
    yield engine
    engine.close()
    strict.close()
    assert strict.misuses == []


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An app on an empty broker, on each kind in turn."""
    url, how = ENGINES[request.param]
    with engine_on(request.getfixturevalue(url) if url.endswith("_url") else url, how=how) as engine:
        yield engine


@pytest.fixture
def worked(broker_url: str) -> Iterator[Engine]:
    """An app whose tasks a worker runs, on each backend in turn."""
    with engine_on(broker_url) as engine:
        yield engine


@pytest.fixture
def local() -> Iterator[Engine]:
    """An app on the memory broker, for what no broker can change."""
    with engine_on("memory://") as engine:
        yield engine


@pytest.fixture(params=DATABASES)
def sql_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty place, on each database in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def sql(sql_url: str) -> Iterator[Broker]:
    """An empty broker, on each database in turn."""
    broker = open_broker(sql_url)
    yield broker
    broker.close()


@pytest.fixture
def untended(sql_url: str) -> Iterator[SQLBroker]:
    """A broker on tables of PostgreSQL that are never vacuumed nor analyzed by themselves."""
    broker = SQLBroker.from_url(BrokerURL(sql_url))
    broker.migrate()
    with broker._database.engine.connect() as connection:
        tasks = schema_of(sql_url).tasks.name
        connection.exec_driver_sql(f"ALTER TABLE {tasks} SET (autovacuum_enabled = off)")
    yield broker
    broker.close()


@pytest.fixture(params=["redis", "sqlite"])
def shared_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty broker that processes share: on Redis, and on one that every machine has."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url
