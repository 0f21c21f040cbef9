"""Adapters for the conformance suite whose own servers are containers, of the image that is being checked.

Else the rows that kill a server would start whatever is installed on this machine, and say nothing of the image.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from gotasks.broker import BrokerURL
from gotasks.conformance.adapter import Adapter, Server
from gotasks_rabbitmq.conformance import RabbitAdapter
from gotasks_rabbitmq.private import PrivateRabbit
from gotasks_redis.conformance import RedisAdapter
from gotasks_sql.conformance import MySQLAdapter, PostgreSQLAdapter
from tests.docker.container import Container
from tests.docker.services import services

#: In the environment: the service that is being checked. An adapter is told nothing but a URL.
SERVICE = "GOTASKS_TEST_SERVICE"

#: Parameters that name a place on one server.
_PLACES = ("namespace", "prefix")


class InContainer(Adapter):
    """The hook `server` of an adapter."""

    @contextmanager
    def server(self, directory: Path) -> Iterator[Server]:
        with self.container() as container:
            yield container

    def container(self) -> Container:
        """A container, not yet started, with the parameters of the broker's URL."""
        params = BrokerURL(self.broker_url).params
        query = urlencode({name: value for name, value in params.items() if name not in _PLACES})
        return Container(services()[os.environ[SERVICE]], f"?{query}" if query else "")


class RedisInContainer(InContainer, RedisAdapter):
    """For Redis and Valkey."""


class PostgreSQLInContainer(InContainer, PostgreSQLAdapter):
    """For PostgreSQL."""


class MySQLInContainer(InContainer, MySQLAdapter):
    """For MySQL and MariaDB."""


class RabbitInContainer(InContainer, RabbitAdapter):
    """For RabbitMQ, whose adapter does more with its server than stop and kill it."""

    @contextmanager
    def server(self, directory: Path) -> Iterator[Server]:
        with self.container() as container:
            yield ContainedRabbit(directory, container)


class ContainedRabbit(PrivateRabbit):
    """The same in a container, which is running: it is asked by programs that run in there."""

    def __init__(self, directory: Path, container: Container) -> None:
        super().__init__(directory)
        self._container = container

    @property
    def url(self) -> str:
        return self._container.url

    def start(self, *, timeout: float = 0.0) -> ContainedRabbit:
        self._container.start()
        return self

    def stop(self, *, timeout: float = 0.0) -> None:
        self._container.stop()

    def kill(self) -> None:
        self._container.kill()

    def ctl(self, *words: str) -> str:
        return self._container.run("rabbitmqctl", "--quiet", *words)

    def eval(self, expression: str) -> str:
        return self.ctl("eval", f"{expression}.").strip()
