"""NATS for the tests: is one there, with JetStream, and a private one."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit


def answers(url: str) -> str:
    """Return the version of the server at this URL. Raises OSError or ValueError where none can be used."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 4222), 2) as connection:
        line = connection.makefile("rb").readline()
    word, _, rest = line.partition(b" ")
    if word != b"INFO":
        raise ValueError("what answers there isn't NATS")
    said = json.loads(rest)
    if not said.get("jetstream"):
        raise ValueError("JetStream isn't enabled there (nats-server -js)")
    return str(said["version"])


@contextmanager
def private(directory: Path) -> Iterator[str]:
    """Run a server of our own on a free port for as long as the context lasts; give its URL."""
    program = shutil.which("nats-server")
    if program is None:
        raise FileNotFoundError("nats-server isn't installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(directory)]
    with (directory / "server.log").open("ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    url = f"nats://127.0.0.1:{port}"
    try:
        _wait_for(url, process)
        yield url
    finally:
        process.kill()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], patience: float = 20.0) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            answers(url)
            return
        except (OSError, ValueError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
