"""How the tests find the servers they need.

For a server NAME these are tried in turn, once a session:

1. the URL in `GOTASKS_TEST_<NAME>_URL`; if nothing answers there, that is an error, not a reason to look further;
2. a container (pytest-docker, `tests/docker/docker-compose.yml`), where a Docker engine answers;
3. a server on its standard port on 127.0.0.1;
4. a private one, from a program that is installed on this machine;
5. else the test is skipped, with a reason that says what was tried. `GOTASKS_REQUIRE=redis,...` makes that a failure.

A shared server is used with respect: a test works in a namespace of its own and deletes only that.

A new kind of server is one more row in `SERVERS`, a module beside `redis_server.py` for its functions, a service in
`docker-compose.yml`, and a fixture in `conftest.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, urlsplit

import pytest

from tests import docker_engine, nats_server, rabbit_server, redis_server, sql_server


@dataclass(frozen=True, kw_only=True)
class Server:
    """One kind of server."""

    name: str  #: in `GOTASKS_TEST_<NAME>_URL`, in `GOTASKS_REQUIRE` and in docker-compose.yml
    port: int  #: the standard one, also inside the container
    docker_url: str  #: of the container, with {host} and {port}
    local_url: str  #: of a server on the standard port of this machine
    answers: Callable[[str], str]  #: URL -> version, by speaking its protocol; raises where it can't be used
    #: directory -> URL of one that runs for this session; None: we can't start one
    private: Callable[[Path], AbstractContextManager[str]] | None
    only_named: bool = False  #: nothing is tried but the URL


SERVERS = {
    server.name: server
    for server in [
        Server(
            name="redis",
            port=6379,
            docker_url="redis://{host}:{port}/0",
            local_url="redis://127.0.0.1:6379/0",
            answers=redis_server.answers,
            private=redis_server.private,
        ),
        Server(
            name="postgresql",
            port=5432,
            docker_url="postgresql+psycopg://postgres@{host}:{port}/postgres",
            local_url="postgresql+psycopg://postgres@127.0.0.1:5432/postgres",
            answers=sql_server.answers_postgresql,
            private=sql_server.private_postgresql,
        ),
        Server(
            name="mariadb",
            port=3306,
            docker_url="mariadb+pymysql://root@{host}:{port}/test",
            local_url="mariadb+pymysql://root@127.0.0.1:3306/test",
            answers=sql_server.answers_mariadb,
            private=sql_server.private_mariadb,
        ),
        Server(
            name="mysql",
            port=3306,
            docker_url="mysql+pymysql://root@{host}:{port}/test",
            local_url="mysql+pymysql://root@127.0.0.1:3306/test",
            answers=sql_server.answers_mysql,
            private=None,
        ),
        Server(
            name="rabbitmq",
            port=5672,
            docker_url="amqp://guest:guest@{host}:{port}/%2F",
            local_url="amqp://guest:guest@127.0.0.1:5672/%2F",
            answers=rabbit_server.answers,
            private=rabbit_server.private,
            only_named=True,
        ),
        Server(
            name="nats",
            port=4222,
            docker_url="nats://{host}:{port}",
            local_url="nats://127.0.0.1:4222",
            answers=nats_server.answers,
            private=nats_server.private,
        ),
    ]
}


class SecretURL(str):
    """A URL that doesn't show its password where pytest prints the arguments of a failed test."""

    __slots__ = ()

    def __repr__(self) -> str:
        parts = urlsplit(self)
        if parts.password is None:
            return super().__repr__()
        login, _, host = parts.netloc.rpartition("@")
        return repr(parts._replace(netloc=f"{login.partition(':')[0]}:***@{host}").geturl())


@dataclass(frozen=True)
class Found:
    """A server that can be used."""

    server: Server
    url: SecretURL
    version: str
    how: str  #: which of the ways led to it

    def __str__(self) -> str:
        return f"{self.server.name} {self.version} at {place(self.url)} ({self.how})"


@dataclass(frozen=True)
class Missing:
    """No server could be used."""

    server: Server
    tried: tuple[str, ...]
    named: bool = False  #: a URL was given, so that nothing else was tried

    def __str__(self) -> str:
        return f"no {self.server.name} server: {'; '.join(self.tried)}"


class Servers:
    """The servers of this session. Each is looked for when a test first wants it."""

    def __init__(self, *, directory: Callable[[str], Path], environ: Mapping[str, str] = os.environ) -> None:
        self._directory = directory
        self._environ = environ
        self._results: dict[str, Found | Missing] = {}
        self._private = ExitStack()
        self.required = required(environ)

    def find(self, name: str, request: pytest.FixtureRequest) -> Found:
        """Return the server of this name; skip, or fail where it is required, if there is none."""
        if name not in self._results:
            self._results[name] = self._look_for(SERVERS[name], request)
        result = self._results[name]
        if isinstance(result, Missing):
            if result.named:
                pytest.fail(str(result), pytrace=False)
            self.missing(name, str(result))
        return result

    def missing(self, name: str, reason: str) -> NoReturn:
        """Skip the test for this reason; fail if GOTASKS_REQUIRE names the server."""
        if name in self.required:
            pytest.fail(f"GOTASKS_REQUIRE names {name}, but there is {reason}", pytrace=False)
        pytest.skip(reason)

    def report(self) -> list[str]:
        """Return one phrase for each server that was looked for."""
        return [str(result) for result in self._results.values()]

    def close(self) -> None:
        """Stop the private servers."""
        self._private.close()

    def _look_for(self, server: Server, request: pytest.FixtureRequest) -> Found | Missing:
        variable = f"GOTASKS_TEST_{server.name.upper()}_URL"
        if given := self._environ.get(variable):
            url = SecretURL(given)
            try:
                return Found(server, url, server.answers(url), variable)
            except Exception as error:
                return Missing(
                    server, (f"{variable} names {place(url)}, which can't be used: {error}",), named=True
                )
        if server.only_named:
            return Missing(server, (f"{variable} isn't set, and nothing else is tried",))
        tried = [f"{variable} isn't set"]
        notes: list[str] = []  # worth a word even if another way leads to a server
        ways: dict[str, Callable[[], str]] = {
            "container": lambda: docker_engine.start(server, request),
            "standard port": lambda: server.local_url,
        }
        if (private := server.private) is not None:
            ways["private"] = lambda: self._private.enter_context(private(self._directory(server.name)))
        for how, way in ways.items():
            try:
                url = SecretURL(way())
                return Found(server, url, server.answers(url), "; ".join([how, *notes]))
            except (
                Exception
            ) as error:  # whatever a driver or an engine raises: it's the reason to try the next
                tried.append(f"{how}: {error}")
                if isinstance(error, docker_engine.NoContainer):
                    notes.append(f"not in a container: {error}")
        return Missing(server, tuple(tried))


def place(url: str) -> str:
    """Return host and port, or the path of the socket: what may be printed of a URL."""
    parts = urlsplit(url)
    if not parts.hostname:
        return unquote(parts.path)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port}" if parts.port else host


def required(environ: Mapping[str, str]) -> frozenset[str]:
    """Return the names in GOTASKS_REQUIRE, each of which must be one that we know."""
    names = frozenset(name.strip() for name in environ.get("GOTASKS_REQUIRE", "").split(",") if name.strip())
    if unknown := names - SERVERS.keys():
        raise pytest.UsageError(
            f"GOTASKS_REQUIRE names {', '.join(sorted(unknown))}; the tests know {', '.join(SERVERS)}"
        )
    return names
