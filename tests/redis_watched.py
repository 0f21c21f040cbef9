"""Sentinels and the Redis servers that they watch, for tests that kill a master."""

from __future__ import annotations

from pathlib import Path

from gotasks.conformance.kit.process import until
from gotasks.conformance.server_process import ServerProcess, free_port
from tests.redis_server import PrivateRedis, ask, field
from tests.resp import RespError


class Watched:
    """A master, its replicas, and sentinels that watch them. Not thread-safe.

    The sentinels take a server for dead that hasn't answered for a second; two of three have to agree.
    """

    SERVICE = "tasks"

    def __init__(self, directory: Path, *, replicas: int = 1, **options: str) -> None:
        """`options` are directives of the data servers."""
        self._directory = directory
        options = {"repl_diskless_sync_delay": "0", **options}  # else a replica has to wait for its data
        self.servers = [
            PrivateRedis(_made(directory / f"data-{each}"), **options) for each in range(replicas + 1)
        ]
        self._sentinels = [ServerProcess("sentinel", directory / f"sentinel-{each}.log") for each in range(3)]
        self._ports: list[int] = []

    @property
    def url(self) -> str:
        """The way by the sentinels."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        return f"redis+sentinel://{hosts}/{self.SERVICE}/0"

    @property
    def sentinels(self) -> list[str]:
        """The URLs of the sentinels."""
        return [f"redis://127.0.0.1:{port}" for port in self._ports]

    def master(self, sentinel: str | None = None) -> PrivateRedis:
        """The server that a sentinel names, the first one if none is given by its URL."""
        named = ask(sentinel or self.sentinels[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.SERVICE)
        assert isinstance(named, list)
        (found,) = (each for each in self.servers if str(each.port).encode() == named[1])
        return found

    def caught_up(self) -> None:
        """Wait until the replicas have all that their master has."""
        master, *replicas = self.servers
        assert ask(master.url, "WAIT", str(len(replicas)), "20000") == len(replicas)

    def start(self) -> Watched:
        """Start all; return when the sentinels know each other, and each replica has the data."""
        master, *replicas = self.servers
        master.start()
        for replica in replicas:
            replica.start()
            ask(replica.url, "REPLICAOF", "127.0.0.1", str(master.port))
        until(
            lambda: field(master.url, "replication", "connected_slaves") == str(len(replicas)), "the replicas"
        )
        for replica in replicas:
            until(lambda: field(replica.url, "replication", "master_link_status") == "up", "its data")  # noqa: B023
        for number, sentinel in enumerate(self._sentinels):
            self._start_sentinel(number, sentinel, master)
        for url in self.sentinels:
            until(lambda: _agrees(url, self.SERVICE, len(self._sentinels), len(replicas)), "the sentinels")  # noqa: B023
        return self

    def _start_sentinel(self, number: int, sentinel: ServerProcess, master: PrivateRedis) -> None:
        port = free_port()
        name = self.SERVICE
        settings = self._directory / f"sentinel-{number}.conf"
        settings.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self._directory}\n"
            f"sentinel monitor {name} 127.0.0.1 {master.port} 2\n"
            f"sentinel down-after-milliseconds {name} 1000\nsentinel failover-timeout {name} 5000\n"
        )
        binary = PrivateRedis.binary()
        assert binary is not None
        sentinel.start([binary, str(settings), "--sentinel"], lambda: _listens(port), timeout=20)
        self._ports.append(port)

    def kill(self) -> None:
        """Kill all that runs."""
        for sentinel in self._sentinels:
            sentinel.kill()
        for server in self.servers:
            server.kill()


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _listens(port: int) -> bool:
    try:
        return ask(f"redis://127.0.0.1:{port}", "PING") == b"PONG"
    except (OSError, RespError):
        return False


def _agrees(sentinel: str, service: str, sentinels: int, replicas: int) -> bool:
    """Whether this sentinel could begin a fail-over that can succeed."""
    reply = ask(sentinel, "SENTINEL", "MASTER", service)
    assert isinstance(reply, list)
    told = dict(zip(reply[::2], reply[1::2], strict=True))
    return (told[b"num-other-sentinels"], told[b"num-slaves"]) == (
        str(sentinels - 1).encode(),
        str(replicas).encode(),
    )
