"""Redis for the tests: is one there, a namespace to work in, a private one to stop and kill."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tests.resp import Resp, RespError

#: Programs that serve as a private server, the first that is installed.
BINARIES = ("redis-server", "valkey-server")


def answers(url: str) -> str:
    """Return the version of the server at this URL. Raises OSError or RespError where none can be used."""
    with Resp(url) as server:
        server.call("PING")
        info = server.call("INFO", "server")
    lines = info.decode().splitlines() if isinstance(info, bytes) else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    if "valkey_version" in fields:
        return f"{fields['valkey_version']} (Valkey)"
    return fields.get("redis_version", "of unknown version")


@contextmanager
def namespaced(url: str) -> Iterator[str]:
    """Give a URL whose namespace nobody else uses; afterwards delete the keys of this namespace, and only these."""
    namespace = f"test-{secrets.token_hex(8)}"
    parts = urlsplit(url)
    params = [(name, value) for name, value in parse_qsl(parts.query) if name != "namespace"]
    try:
        yield urlunsplit(parts._replace(query=urlencode([*params, ("namespace", namespace)])))
    finally:
        delete_namespace(url, namespace)


def delete_namespace(url: str, namespace: str) -> int:
    """Delete all keys `{namespace}:...` of a server that others may use too; return how many there were."""
    deleted = 0
    with Resp(url) as server:
        cursor: bytes = b"0"
        while True:
            reply = server.call("SCAN", cursor, "MATCH", f"{{{namespace}}}:*", "COUNT", "1000")
            assert isinstance(reply, list), reply
            after, keys = reply
            assert isinstance(after, bytes), reply
            assert isinstance(keys, list), reply
            if keys:
                count = server.call("UNLINK", *[key for key in keys if isinstance(key, bytes)])
                deleted += count if isinstance(count, int) else 0
            cursor = after
            if cursor == b"0":
                return deleted


@contextmanager
def private(directory: Path) -> Iterator[str]:
    """Run a server of our own on a free port for as long as the context lasts; give its URL."""
    server = PrivateRedis(directory)
    try:
        yield server.start().url
    finally:
        server.kill()


class PrivateRedis:
    """A Redis server of one's own, which a test may stop and kill. It keeps its port and its directory.

    `options` are directives of redis.conf: `PrivateRedis(directory, appendonly="yes", maxmemory="10mb")`; an
    underscore stands for a dash. Without any it keeps nothing on disk.
    """

    def __init__(self, directory: Path, **options: str) -> None:
        self.directory = directory
        self.options = {"save": "", "appendonly": "no", **options}
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def binary() -> str | None:
        """Return the path of the server program, or None if none is installed."""
        return next((path for path in map(shutil.which, BINARIES) if path), None)

    @property
    def url(self) -> str:
        """Where it listens, also while it is down."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise RuntimeError("this server isn't running")
        return self._process.pid

    def start(self, *, timeout: float = 20.0) -> PrivateRedis:
        """Start it and return it once it answers and has loaded its data."""
        binary = self.binary()
        if binary is None:
            raise FileNotFoundError(f"none of {', '.join(BINARIES)} is installed")
        if self._process is not None:
            raise RuntimeError("this server is running")
        self.port = self.port or free_port()
        words = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        for name, value in self.options.items():
            words += [f"--{name.replace('_', '-')}", value]
        log = self.directory / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(words, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + timeout
        while True:
            try:
                with Resp(self.url, timeout=1) as server:
                    server.call("PING")
            except (OSError, RespError):  # not there yet, or still loading
                died = self._process.poll() is not None
                if died or time.monotonic() > deadline:
                    self.kill()
                    tail = log.read_text(errors="replace")[-2000:]
                    why = "ended" if died else f"didn't answer within {timeout:g} s"
                    raise RuntimeError(
                        f"the private Redis server {why}; its log ends with:\n{tail}"
                    ) from None
                time.sleep(0.01)
            else:
                return self

    def stop(self, *, timeout: float = 20.0) -> None:
        """Stop it in an orderly way (SIGTERM) and wait until it's gone. Does nothing if it isn't running."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            finally:
                self.kill()

    def kill(self) -> None:
        """Kill it (SIGKILL) and wait until it's gone. Does nothing if it isn't running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop it and start it again on the same port, with the data that it kept."""
        self.stop()
        self.start()


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
