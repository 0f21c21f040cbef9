"""RedisAdapter: what the conformance suite has to know of this backend beyond its URL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import redis

from gotasks.broker import BrokerURL
from gotasks.conformance.adapter import Adapter, MissingHook, NotApplicable, Server
from gotasks.conformance.server_process import ServerProcess, free_port
from gotasks_redis.keys import Keys
from gotasks_redis.options import PORT, SENTINEL, TLS, secure
from gotasks_redis.route import route

#: Programs that serve as a private server, the first that is installed.
BINARIES = ("redis-server", "valkey-server")

#: The settings with which a server keeps what `?durability=` says.
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "none": {},
    "restart": {"appendonly": "yes"},
    "kill": {"appendonly": "yes", "appendfsync": "always"},
}

#: By so much a server is over its `maxmemory`: what clients' buffers take and give doesn't matter then. Bytes.
_OVER = 1024 * 1024


class RedisAdapter(Adapter):
    """Places are namespaces. Servers of the suite's own are started from `redis-server` or `valkey-server` on PATH.

    What stops, kills, fills or disturbs a server is done to such a one only: the server of the URL may be others' too.
    """

    lease = 0.5

    def url(self, namespace: str) -> str:
        return _with(self.broker_url, namespace=namespace)

    def drop(self, url: str) -> None:
        with _client(url) as client:
            keys = list(client.scan_iter(match=f"{_keys(url).prefix}*", count=1000))
            for start in range(0, len(keys), 1000):
                client.unlink(*keys[start : start + 1000])

    def server_version(self, url: str) -> str:
        with _client(url) as client:
            info = client.info("server")
        if "valkey_version" in info:
            return f"Valkey {info['valkey_version']}"
        return f"Redis {info['redis_version']}"

    def endpoint(self, url: str) -> tuple[str, int]:
        parsed = BrokerURL(url)
        if parsed.scheme == "unix":
            raise NotApplicable("it is reached by a socket of this machine, not by a network")
        if parsed.driver is not None:
            raise NotApplicable(
                "others say where the server is, so a proxy before them sees none of its traffic"
            )
        ((host, port),) = parsed.hosts or [("127.0.0.1", None)]
        return host, port or PORT

    def through(self, url: str, port: int) -> str:
        leads = super().through(url, port)
        # The certificate is for the server's name, and the proxy has another.
        return _with(leads, ssl_check_hostname="false") if secure(BrokerURL(url)) else leads

    def impatient(self, url: str) -> tuple[str, float]:
        return _with(url, timeout="2", connect_timeout="2"), 10.0

    @contextmanager
    def server(self, directory: Path) -> Iterator[Server]:
        if PrivateRedis.binary() is None:
            programs = " or ".join(BINARIES)
            raise MissingHook(
                "server(directory)",
                f"there is no {programs} on PATH for a server that the suite may kill. Install redis-server",
            )
        # One server without replicas, reached by redis://; of the parameters all but those of the way to the other.
        params = BrokerURL(self.broker_url).params
        query = {
            name: value
            for name, value in params.items()
            if name not in TLS | SENTINEL | {"db", "namespace", "replicas"}
        }
        settings = SETTINGS[query.get("durability", "none")]
        server = PrivateRedis(directory, query=urlencode(query), **settings)
        try:
            yield server.start()
        finally:
            server.kill()

    def put_raw(self, url: str, queue: str, data: bytes) -> None:
        with _client(url) as client:
            client.lpush(_keys(url).ready(queue), data)

    def evict(self, url: str, task_id: str) -> None:
        with _client(url) as client:
            if not client.delete(_keys(url).task(task_id)):
                raise LookupError(f"there is no record of {task_id}")

    def dump(self, url: str) -> Mapping[str, int]:
        with _client(url) as client:
            names = client.scan_iter(match=f"{_keys(url).prefix}*", count=1000)
            # None: it is gone since.
            sizes = {name: client.memory_usage(name, samples=0) for name in names}
        return {
            name.decode("utf-8", "backslashreplace"): size for name, size in sizes.items() if size is not None
        }

    def disturb(self, server: Server) -> None:
        with _client(server.url) as client:
            client.script_flush()
            for kind in ("normal", "pubsub"):
                client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    @contextmanager
    def full(self, server: Server) -> Iterator[None]:
        filler = "gotasks-conformance-filler"
        with _client(server.url) as client:
            # Made on the server: a client's buffer, which it frees a little later, would count as well.
            client.setrange(filler, 8 * _OVER, "x")
            client.config_set("maxmemory", client.info("memory")["used_memory"] - _OVER)
            try:
                yield
            finally:
                client.config_set("maxmemory", 0)
                client.delete(filler)

    @contextmanager
    def weakened(self, server: Server) -> Iterator[None]:
        with _client(server.url) as client:
            client.config_set("appendonly", "no")
            try:
                yield
            finally:
                client.config_set("appendonly", "yes")


class PrivateRedis:
    """A Redis server of one's own, which may be stopped and killed. It keeps its port and its directory.

    `options` are directives of redis.conf: `PrivateRedis(directory, appendonly="yes", maxmemory="10mb")`; an
    underscore stands for a dash. Without any it keeps nothing on disk. `query` is that of its URL.
    """

    def __init__(self, directory: Path, *, query: str = "", **options: str) -> None:
        self.directory = directory
        self.options = {"save": "", "appendonly": "no", **options}
        self.port = 0
        self._query = query
        self._process = ServerProcess("Redis server", directory / "server.log")

    @staticmethod
    def binary() -> str | None:
        """Return the path of the server program, or None if none is installed."""
        return next((path for path in map(shutil.which, BINARIES) if path), None)

    @property
    def url(self) -> str:
        """Where it listens, also while it is down."""
        return f"redis://127.0.0.1:{self.port}/0{'?' if self._query else ''}{self._query}"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._process.pid

    def start(self, *, timeout: float = 20.0) -> PrivateRedis:
        """Start it and return it once it answers and has loaded its data."""
        binary = self.binary()
        if binary is None:
            raise FileNotFoundError(f"none of {', '.join(BINARIES)} is installed")
        self.port = self.port or free_port()
        words = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        for name, value in self.options.items():
            words += [f"--{name.replace('_', '-')}", value]
        self._process.start(words, self._answers, timeout=timeout)
        return self

    def stop(self, *, timeout: float = 20.0) -> None:
        """Stop it in an orderly way (SIGTERM) and wait until it's gone. Does nothing if it isn't running."""
        self._process.stop(timeout=timeout)

    def kill(self) -> None:
        """Kill it (SIGKILL) and wait until it's gone. Does nothing if it isn't running."""
        self._process.kill()

    def restart(self) -> None:
        """Stop it and start it again on the same port, with the data that it kept."""
        self.stop()
        self.start()

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.exceptions.RedisError:  # not there yet, or still loading
            return False


def _client(url: str) -> Any:  # redis-py's types say of each answer that it may be awaited
    """A client of the server that has the tasks of a broker URL now, with the URL's user and TLS options."""
    return redis.Redis(**route(BrokerURL(url), _keys(url)).options())


def _keys(url: str) -> Keys:
    return Keys.of(BrokerURL(url))


def _with(url: str, **params: str) -> str:
    """The URL with these parameters, and all others as they were."""
    place = url.partition("?")[0]  # not by urlunsplit: it makes unix:/path of unix:///path
    return f"{place}?{urlencode({**BrokerURL(url).params, **params})}"
