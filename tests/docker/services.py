"""The services of `docker-compose.yml`: what each serves, and which image it is to have."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.docker_engine import COMPOSE_FILE
from tests.servers import SERVERS, Server

#: Where `local-images.sh` writes its images, and Docker Compose reads them.
ENV_FILE = Path(__file__).parent / ".env"

_NAME = re.compile(r"^  ([a-z0-9.-]+):$", re.MULTILINE)
_IMAGE = re.compile(r"^    image: \$\{(\w+):-(\S+)\}$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What the matrix has to know of one kind of server."""

    server: Server  #: how it is reached, and whether it answers
    adapter: str  #: for the conformance suite: of this name in `adapters.py`
    profile: str  #: of the suite; what the check must reach
    query: str = ""  #: of the URL that is checked


#: The first part of a service's name → its kind.
KINDS = {
    "redis": Kind(
        server=SERVERS["redis"], adapter="RedisInContainer", profile="full", query="?durability=kill"
    ),
    "valkey": Kind(
        server=SERVERS["redis"], adapter="RedisInContainer", profile="full", query="?durability=kill"
    ),
    "postgresql": Kind(server=SERVERS["postgresql"], adapter="PostgreSQLInContainer", profile="full"),
    "mariadb": Kind(server=SERVERS["mariadb"], adapter="MySQLInContainer", profile="full"),
    "mysql": Kind(server=SERVERS["mysql"], adapter="MySQLInContainer", profile="full"),
    "rabbitmq": Kind(server=SERVERS["rabbitmq"], adapter="RabbitInContainer", profile="durable"),
    "nats": Kind(server=SERVERS["nats"], adapter="nats:NatsInContainer", profile="durable"),
}


@dataclass(frozen=True)
class Service:
    """One service."""

    name: str
    variable: str  #: the environment variable that names another image
    default: str  #: the image it has without that

    @property
    def kind(self) -> Kind:
        """Of which server it is one line."""
        return KINDS[self.name.partition("-")[0]]

    @property
    def adapter(self) -> str:
        """The adapter for it, as `gotasks check --adapter` takes it."""
        module, _, name = self.kind.adapter.rpartition(":")
        return f"tests.docker.{module + '_' if module else ''}adapters:{name}"

    def image(self, environ: Mapping[str, str] = os.environ, env_file: Path = ENV_FILE) -> str:
        """The image that it has, by the same rules as for Docker Compose: environment, `.env`, default."""
        lines = env_file.read_text().splitlines() if env_file.exists() else []
        written = dict(line.split("=", 1) for line in lines if "=" in line)
        return environ.get(self.variable) or written.get(self.variable) or self.default


def services(text: str | None = None) -> dict[str, Service]:
    """The services by name, in the order of the file, or of its `text`."""
    _, _, body = (COMPOSE_FILE.read_text() if text is None else text).partition("\nservices:\n")
    names, images = _NAME.findall(body), _IMAGE.findall(body)
    return {
        name: Service(name, variable, default)
        for name, (variable, default) in zip(names, images, strict=True)
    }
