"""Fixtures for the tests that run on a broker."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from gotasks.broker import Broker
from gotasks.discovery import open_broker
from tests.backends.engine import Engine


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


@pytest.fixture
def broker(broker_url: str) -> Iterator[Broker]:
    """An empty broker, on each backend in turn."""
    broker = open_broker(broker_url)
    yield broker
    broker.close()


@pytest.fixture
def short(broker_url: str) -> float:
    """A lease that a test can wait for, in seconds: long enough for a call of the backend on a busy machine."""
    return 0.2 if broker_url.startswith("memory") else 0.5


#: Brokers that the engine must work with, and how its tasks are run there: by a worker, or by `App.drain`.
ENGINES = {
    "memory": ("memory://", "worker"),
    "redis": ("redis", "drain"),
    "handoff": ("memory://?handoff=true", "worker"),
    "no atomic move": ("memory://?without=ATOMIC_MOVE", "worker"),
    "no records": ("memory://?without=RECORDS,BROWSE", "worker"),
    "memory, drained": ("memory://", "drain"),
}


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An app on an empty broker, on each kind in turn."""
    url, how = ENGINES[request.param]
    engine = Engine(request.getfixturevalue("redis_url") if url == "redis" else url, how=how)
    yield engine
    engine.close()


@pytest.fixture
def worked(broker_url: str) -> Iterator[Engine]:
    """An app whose tasks a worker runs, on each backend in turn."""
    engine = Engine(broker_url)
    yield engine
    engine.close()


@pytest.fixture
def local() -> Iterator[Engine]:
    """An app on the memory broker, for what no broker can change."""
    engine = Engine("memory://")
    yield engine
    engine.close()
