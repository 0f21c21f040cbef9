"""PrivateNats: a nats-server of one's own, which may be stopped and killed."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from gotasks.conformance.server_process import ServerProcess, free_port


class PrivateNats:
    """It keeps its port and its directory. `query` is that of its URL."""

    def __init__(self, directory: Path, *, query: str = "") -> None:
        self.directory = directory
        self.port = 0
        self._query = query
        self._process = ServerProcess("nats-server", directory / "server.log")

    @staticmethod
    def binary() -> str | None:
        """The path of the program, or None if it isn't installed."""
        return shutil.which("nats-server")

    @property
    def url(self) -> str:
        """Where it listens, also while it is down."""
        return f"nats://127.0.0.1:{self.port}{'?' if self._query else ''}{self._query}"

    def start(self, *, timeout: float = 20.0) -> PrivateNats:
        """Start it and return it once it answers."""
        binary = self.binary()
        if binary is None:
            raise FileNotFoundError("nats-server isn't installed")
        self.port = self.port or free_port()
        words = [binary, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.directory)]
        self._process.start(words, self._answers, timeout=timeout)
        return self

    def stop(self, *, timeout: float = 20.0) -> None:
        """Stop it in an orderly way (SIGTERM) and wait until it's gone. Does nothing if it isn't running."""
        self._process.stop(timeout=timeout)

    def kill(self) -> None:
        """SIGKILL, and wait until it's gone. Does nothing if it isn't running."""
        self._process.kill()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False
