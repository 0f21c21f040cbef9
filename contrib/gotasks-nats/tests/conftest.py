"""A server for the tests, and brokers that are closed after each; what they stored goes too."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotasks.broker import BrokerURL
from gotasks_nats import NatsBroker
from gotasks_nats.adapter import NatsAdapter
from gotasks_nats.server import PrivateNats

#: The server: one that is named, one on the standard port, or one of our own.
NAMED = os.environ.get("GOTASKS_TEST_NATS_URL", "")
STANDARD = "nats://127.0.0.1:4222"


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that may be others' too."""
    if NAMED or _listens(4222):
        yield NAMED or STANDARD
        return
    if PrivateNats.binary() is None:
        pytest.skip(
            "no NATS: GOTASKS_TEST_NATS_URL isn't set, nobody listens on 4222, no nats-server on PATH"
        )
    server = PrivateNats(tmp_path_factory.mktemp("nats"))
    yield server.start().url
    server.kill()


@pytest.fixture
def url(server_url: str) -> Iterator[str]:
    """The URL of a place of one's own on it."""
    adapter = NatsAdapter(server_url)
    url = adapter.url(f"test-{secrets.token_hex(8)}")
    yield url
    adapter.drop(url)


@pytest.fixture
def private_nats(tmp_path: Path) -> Iterator[PrivateNats]:
    """A running server of one's own, to stop and kill."""
    if PrivateNats.binary() is None:
        pytest.skip("no nats-server program on this machine for a server that a test may kill")
    server = PrivateNats(tmp_path)
    yield server.start()
    server.kill()


@pytest.fixture
def make_broker() -> Iterator[Callable[[str], NatsBroker]]:
    """Brokers that are closed afterwards."""
    made = []

    def make(url: str) -> NatsBroker:
        made.append(NatsBroker.from_url(BrokerURL(url)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            return connection.recv(4) == b"INFO"
    except OSError:
        return False
