"""Fixtures for all tests: servers, found as `servers.py` says, and URLs of brokers to work with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests import docker_engine
from tests.redis_server import PrivateRedis, namespaced
from tests.servers import Found, SecretURL, Servers, required

#: What an engine test runs on: every backend with which the engine must work.
BACKENDS = ("memory", "redis")

_servers = pytest.StashKey[Servers]()
_memory_used = pytest.StashKey[bool]()


def pytest_configure() -> None:
    required(os.environ)  # a misspelt name must not pass as "not required"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    used = ["memory"] if config.stash.get(_memory_used, False) else []
    if servers := config.stash.get(_servers, None):
        used += servers.report()
    terminalreporter.write_line(f"backends: {'; '.join(used) or 'none was asked for'}")


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers of this session."""
    servers = request.config.stash[_servers] = Servers(directory=tmp_path_factory.mktemp)
    yield servers
    servers.close()


@pytest.fixture(scope="session")
def redis_server(servers: Servers, request: pytest.FixtureRequest) -> Found:
    """A Redis server, perhaps one that others use too: touch nothing but your own namespace."""
    return servers.find("redis", request)


@pytest.fixture
def redis_url(redis_server: Found) -> Iterator[SecretURL]:
    """The URL of a namespace on a Redis server that is empty, and that is emptied afterwards."""
    with namespaced(redis_server.url) as url:
        yield SecretURL(url)


@pytest.fixture
def private_redis(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., PrivateRedis]]:
    """Make running servers of one's own, to stop and kill: `private_redis(appendonly="yes")`."""
    if PrivateRedis.binary() is None:
        servers.missing("redis", "no redis-server program on this machine for a server that a test may kill")
    started: list[PrivateRedis] = []

    def start(**options: str) -> PrivateRedis:
        started.append(PrivateRedis(tmp_path_factory.mktemp("redis"), **options))
        return started[-1].start()

    yield start
    for server in started:
        server.kill()


@pytest.fixture(params=BACKENDS)
def broker_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty broker, on each backend in turn."""
    if request.param == "memory":
        request.config.stash[_memory_used] = True
        return "memory://"
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


# pytest-docker: one service is started when it's wanted, not all of them at once.


@pytest.fixture(scope="session")
def docker_compose_command() -> str:
    return docker_engine.compose_command()


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(docker_engine.COMPOSE_FILE)


@pytest.fixture(scope="session")
def docker_setup() -> None:
    return None
