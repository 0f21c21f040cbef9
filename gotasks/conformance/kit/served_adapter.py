"""ServedAdapter: an adapter for a broker of a few lines behind `kit.served`, with every hook there is."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gotasks.broker import Broker, BrokerURL
from gotasks.conformance.adapter import Adapter, Server
from gotasks.conformance.kit import lifeline
from gotasks.conformance.kit.served import OpenMemory, ServedBroker, describe
from gotasks.conformance.kit.served_transaction import ServedTransaction

if TYPE_CHECKING:
    from typing_extensions import Self


class ServedServer:
    """A server process. It keeps its port, and with a journal what it confirmed."""

    def __init__(self, of: type[Broker], journal: Path | None, query: str = "") -> None:
        self._of, self._journal, self._query = of, journal, query
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        durable = "&durable=true" if self._journal else ""
        query = f"&{self._query}" if self._query else ""
        return f"served://127.0.0.1:{self._port}?of={describe(self._of)}{durable}{query}"

    def start(self) -> None:
        words = [sys.executable, "-m", "gotasks.conformance.kit.served", describe(self._of)]
        words += [f"--port={self._port}"]
        words += [f"--{pair}" for pair in self._query.split("&") if pair]
        if self._journal is not None:
            words += ["--journal", str(self._journal)]
        environment = {**os.environ, lifeline.VARIABLE: "1"}
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the served broker ended at once")
        self._port = int(line)

    def stop(self) -> None:
        self.kill()  # it has nothing to do in an orderly way: the journal is as it must be after every call

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()
            self._process = None


class ServedAdapter(Adapter):
    """For the broker class `of`; what connects is `client`. Use it as a context manager: it owns a server."""

    lease = 0.5

    def __init__(
        self, of: type[Broker] = OpenMemory, client: type[ServedBroker] = ServedBroker, query: str = ""
    ) -> None:
        self.broker_class = client
        self._of, self._query = of, query
        # Always with a journal, else the rows for what outlives a kill would not be for it.
        self._directory = tempfile.TemporaryDirectory(prefix="gotasks-served-")
        self._server = ServedServer(of, Path(self._directory.name) / "journal", query)

    def __enter__(self) -> Self:
        self._server.start()
        self.broker_url = self._server.url
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.kill()
        self._directory.cleanup()

    def __getstate__(self) -> dict[str, Any]:
        """For another process: the server stays this one's."""
        return {name: value for name, value in vars(self).items() if name not in ("_server", "_directory")}

    def url(self, namespace: str) -> str:
        return f"{self.broker_url}&namespace={namespace}"

    def drop(self, url: str) -> None:
        self._backdoor(url, "drop")

    def impatient(self, url: str) -> tuple[str, float]:
        return f"{url}&timeout=0.5", 3.0

    def put_raw(self, url: str, queue: str, data: bytes) -> None:
        self._backdoor(url, "put_raw", queue=queue, data=data)

    def evict(self, url: str, task_id: str) -> None:
        self._backdoor(url, "evict", ids=[task_id])

    def dump(self, url: str) -> Mapping[str, int]:
        return cast(dict[str, int], self._backdoor(url, "dump"))

    def disturb(self, server: Server) -> None:
        self._backdoor(server.url, "disturb")

    @contextmanager
    def server(self, directory: Path) -> Iterator[Server]:
        server = ServedServer(self._of, directory / "journal", self._query)
        server.start()
        try:
            yield server
        finally:
            server.kill()

    @contextmanager
    def full(self, server: Server) -> Iterator[None]:
        self._backdoor(server.url, "fill")
        try:
            yield
        finally:
            self._backdoor(server.url, "make_room")

    @contextmanager
    def transaction(self, url: str) -> Iterator[ServedTransaction]:
        parsed = BrokerURL(url)
        ((host, port),) = parsed.hosts
        transaction = ServedTransaction((host, port or 0), parsed.text("namespace", ""))
        try:
            yield transaction
        finally:
            transaction.close()

    @contextmanager
    def weakened(self, server: Server) -> Iterator[None]:
        self._backdoor(server.url, "weaken")
        try:
            yield
        finally:
            self._backdoor(server.url, "strengthen")

    def _backdoor(self, url: str, method: str, **arguments: Any) -> Any:
        broker = ServedBroker.from_url(BrokerURL(url))
        try:
            return broker.backdoor(method, **arguments)
        finally:
            broker.close()
