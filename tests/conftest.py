"""Fixtures for all tests: servers, found as `servers.py` says, and URLs of brokers to work with."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from gotasks_rabbitmq.conformance import with_params
from tests import docker_engine, rabbit_server
from tests.rabbit_server import PrivateRabbit
from tests.redis_server import PrivateRedis, namespaced
from tests.servers import Found, SecretURL, Servers, required
from tests.sql_server import prefixed

#: What a test of the contract runs on: every backend; "recorded" is RabbitMQ with its records on Redis. MySQL and
#: RabbitMQ have their turn where a server is named; else one test, the check of `conformance/test_check.py`, says that
#: there is none, and not hundreds.
BACKENDS: tuple[str, ...] = ("memory", "redis", "sqlite", "postgresql", "mariadb")
if rabbit_server.NAMED:
    BACKENDS += ("rabbitmq", "recorded")
if os.environ.get("GOTASKS_TEST_MYSQL_URL"):
    BACKENDS += ("mysql",)

#: Those of them that are databases, and those that are servers too.
DATABASES = tuple(each for each in BACKENDS if each not in ("memory", "redis", "rabbitmq", "recorded"))
DATABASE_SERVERS = tuple(each for each in DATABASES if each != "sqlite")

_servers = pytest.StashKey[Servers]()
_embedded = pytest.StashKey[dict[str, str]]()
_used_elsewhere = pytest.StashKey[list[str]]()
_figures = pytest.StashKey[list[str]]()


def pytest_configure() -> None:
    required(os.environ)  # a misspelt name must not pass as "not required"
    hypothesis.settings.register_profile("tests", deadline=None)  # a busy machine is no failure
    hypothesis.settings.load_profile("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that no process of several is alone with it at the end."""
    longest = ("test_matrix.py", "test_check.py", "test_filesystem.py", "test_suite.py")
    items.sort(key=lambda item: item.path.name not in longest)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a fixture skips is one line of the summary for each reason, with a count, and not one for each test."""
    report = yield
    if report.skipped and call.when == "setup" and call.excinfo is not None:
        *_, place = (each for each in call.excinfo.traceback if "_pytest" not in Path(each.path).parts)
        assert isinstance(report.longrepr, tuple)
        report.longrepr = (str(place.path), place.lineno + 1, report.longrepr[2])
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several processes hands over what it has to say."""
    config = session.config
    if (output := getattr(config, "workeroutput", None)) is not None:
        output["used"], output["figures"] = _said(config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """One of several processes has ended."""
    said = getattr(node, "workeroutput", {})
    config = node.config
    config.stash.setdefault(_used_elsewhere, []).extend(said.get("used", ()))
    config.stash.setdefault(_figures, []).extend(said.get("figures", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    used, lines = _said(config)
    for line in lines:
        terminalreporter.write_line(f"figures: {line}")
    terminalreporter.write_line(f"backends: {'; '.join(dict.fromkeys(used)) or 'none was asked for'}")


def _said(config: pytest.Config) -> tuple[list[str], list[str]]:
    """The backends that were used, and the figures."""
    used = [*config.stash.get(_embedded, {}).values(), *config.stash.get(_used_elsewhere, [])]
    if servers := config.stash.get(_servers, None):
        used += servers.report()
    return used, config.stash.get(_figures, [])


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


@pytest.fixture(scope="session")
def rabbitmq_server(servers: Servers, request: pytest.FixtureRequest) -> Found:
    """A RabbitMQ server, perhaps one that others use too: touch nothing but your own namespace."""
    return servers.find("rabbitmq", request)


@pytest.fixture
def rabbitmq_url(rabbitmq_server: Found) -> Iterator[SecretURL]:
    """The URL of a namespace on a RabbitMQ server that is empty, and that is emptied afterwards."""
    with rabbit_server.namespaced(rabbitmq_server.url) as url:
        yield SecretURL(url)


@pytest.fixture
def recorded_url(rabbitmq_url: str, redis_url: str) -> SecretURL:
    """The same, with its records on Redis."""
    return SecretURL(with_params(rabbitmq_url, records=redis_url))


@pytest.fixture(scope="session")
def rabbit_program(servers: Servers, request: pytest.FixtureRequest) -> None:
    """A server of RabbitMQ can be started here, to stop and kill."""
    servers.find("rabbitmq", request)
    if PrivateRabbit.program() is None:
        servers.missing(
            "rabbitmq", "no rabbitmq-server program on this machine for a server that a test may kill"
        )


@pytest.fixture(scope="session")
def private_rabbit(rabbit_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRabbit]:
    """A running server of one's own, to stop and kill; whoever did so starts it again.

    One for all tests, since it takes seconds to start: a test uses a namespace of its own. It looks for deliveries that
    are held for too long every half second.
    """
    advanced = "[{rabbit, [{channel_tick_interval, 500}]}]."
    server = PrivateRabbit(tmp_path_factory.mktemp("rabbitmq"), advanced=advanced)
    yield server.start()
    server.close()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say something at the end of the run, whether the test passes or fails."""
    lines = request.config.stash.setdefault(_figures, [])
    name = request.node.name
    return lambda text: lines.append(f"{name}: {text}")


@pytest.fixture
def memory_url(request: pytest.FixtureRequest) -> str:
    """The URL of the memory broker."""
    request.config.stash.setdefault(_embedded, {})["memory"] = "memory"
    return "memory://"


@pytest.fixture
def sqlite_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a file that isn't there yet."""
    request.config.stash.setdefault(_embedded, {})["sqlite"] = f"sqlite {sqlite3.sqlite_version}"
    return f"sqlite:///{tmp_path}/tasks.db"


def _database(name: str, servers: Servers, request: pytest.FixtureRequest) -> Iterator[SecretURL]:
    with prefixed(servers.find(name, request).url) as url:
        yield SecretURL(url)


@pytest.fixture
def postgresql_url(servers: Servers, request: pytest.FixtureRequest) -> Iterator[SecretURL]:
    """The URL of a place in a PostgreSQL database that is empty, and that is emptied afterwards."""
    yield from _database("postgresql", servers, request)


@pytest.fixture
def mariadb_url(servers: Servers, request: pytest.FixtureRequest) -> Iterator[SecretURL]:
    """The same for MariaDB."""
    yield from _database("mariadb", servers, request)


@pytest.fixture
def mysql_url(servers: Servers, request: pytest.FixtureRequest) -> Iterator[SecretURL]:
    """The same for MySQL."""
    yield from _database("mysql", servers, request)


@pytest.fixture(params=BACKENDS)
def broker_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty broker, on each backend in turn."""
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
