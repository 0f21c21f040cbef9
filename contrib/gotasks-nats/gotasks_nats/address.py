"""Address: where the server is, and which stream on it is ours."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gotasks.broker import BrokerURL
from gotasks.errors import InvalidURL

_NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Address:
    """What a URL says."""

    servers: tuple[tuple[str, int], ...]
    namespace: str
    tls: bool
    replicas: int
    timeout: float  #: seconds that an answer of the server may take
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: BrokerURL) -> Address:
        """Raises InvalidURL."""
        url.only({"namespace", "replicas", "timeout", "tls"})
        if url.path not in ("", "/"):
            raise InvalidURL("nats:// takes no path; a place of its own on the server is ?namespace=shop")
        namespace = url.text("namespace", "default")
        if not _NAMESPACE.fullmatch(namespace):
            raise InvalidURL("namespace= in the nats:// URL takes 1 to 64 letters, digits, _ and -")
        timeout = url.seconds("timeout", 10.0)
        if timeout > 20:
            raise InvalidURL("timeout= in the nats:// URL takes 20 seconds at the most")
        replicas = url.integer("replicas", 1, least=1)
        if replicas > 5:
            raise InvalidURL("replicas= in the nats:// URL takes 1 to 5")
        hosts = url.hosts or (("127.0.0.1", None),)
        return cls(
            servers=tuple((host, port or 4222) for host, port in hosts),
            namespace=namespace,
            tls=url.boolean("tls", default=False),
            replicas=replicas,
            timeout=timeout,
            user=url.user,
            password=url.password,
        )

    @property
    def stream(self) -> str:
        """The name of the stream."""
        return f"gotasks-{self.namespace}"

    @property
    def stored(self) -> str:
        """All subjects of the stream."""
        return f"gotasks.{self.namespace}.stored.>"

    @property
    def tasks(self) -> str:
        """What the subject of a task begins with; its id follows."""
        return f"gotasks.{self.namespace}.stored.task."

    @property
    def clock(self) -> str:
        """The subject of messages that only tell the server's time, and how far its stream is."""
        return f"gotasks.{self.namespace}.stored.clock"

    @property
    def gone(self) -> str:
        """What the subject of a notice begins with: sequence and id of what was removed follow, and who asked."""
        return f"gotasks.{self.namespace}.gone."

    def __str__(self) -> str:
        """What may be shown."""
        return "NATS at " + ", ".join(f"{host}:{port}" for host, port in self.servers)
