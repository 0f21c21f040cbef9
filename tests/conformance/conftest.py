"""Fixtures for the tests of the conformance suite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gotasks_rabbitmq.conformance import with_params
from tests import rabbit_server
from tests.conformance.beside import AT_A_TIME, PROFILES, THE_CLASS, Beside, check, the_class
from tests.redis_server import namespaced
from tests.servers import Servers
from tests.sql_server import prefixed


@pytest.fixture(scope="module")
def beside(
    servers: Servers, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Beside]]:
    """All of this file that runs beside and was chosen, by its name; begun when the first of them is wanted.

    A backend without a server is left out.
    """
    chosen = {
        item.callspec.params["backend"] if hasattr(item, "callspec") else THE_CLASS
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.module is request.module
        and "beside" in item.fixturenames
    }
    started: dict[str, Beside] = {}
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(AT_A_TIME))

        def start(name: str, url: str | None = None) -> None:
            directory = tmp_path_factory.mktemp(name.replace(" ", "-"))
            command = the_class(directory) if url is None else check(directory, url, PROFILES[name])
            started[name] = Beside(command, pool)
            stack.callback(started[name].close)

        for backend in (each for each in PROFILES if each in chosen):
            try:
                url = stack.enter_context(_place(backend, servers, request, tmp_path_factory))
            except (pytest.skip.Exception, pytest.fail.Exception):
                continue
            start(backend, url)
        if THE_CLASS in chosen:
            start(THE_CLASS)
        yield started


@contextmanager
def _place(
    backend: str, servers: Servers, request: pytest.FixtureRequest, paths: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of an empty place on this backend."""
    if backend == "memory":
        yield "memory://"
    elif backend == "sqlite":
        path: Path = paths.mktemp("file")
        yield f"sqlite:///{path}/tasks.db"
    elif backend == "redis":
        with namespaced(servers.find(backend, request).url) as url:
            yield f"{url}&durability=kill"
    elif backend == "rabbitmq":
        with rabbit_server.namespaced(servers.find(backend, request).url) as url:
            yield url
    elif backend == "recorded":
        with (
            namespaced(servers.find("redis", request).url) as records,
            rabbit_server.namespaced(servers.find("rabbitmq", request).url) as url,
        ):
            yield with_params(url, records=f"{records}&durability=kill")
    else:
        with prefixed(servers.find(backend, request).url) as url:
            yield url
