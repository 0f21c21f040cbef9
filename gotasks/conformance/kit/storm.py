"""Storm: clients at work on a server that is killed again and again."""

from __future__ import annotations

import time
from collections import defaultdict
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from gotasks.broker import Broker
from gotasks.conformance.adapter import EmbeddedServer
from gotasks.conformance.kit import load
from gotasks.conformance.kit.elsewhere import Elsewhere

if TYPE_CHECKING:
    from gotasks.conformance.scene import Scene

#: The clients' leases; the server is back sooner. Seconds.
LEASE = 1.0


class Storm:
    """Clients at work on a server that is killed."""

    def __init__(self, it: Scene, *, clients: int) -> None:
        self._it = it
        self._server = it.server()
        queues = [it.name(f"load-{number}") for number in range(clients)]
        self._journals: dict[str, Path] = {queue: it.directory / f"{queue}.journal" for queue in queues}
        self._crew: dict[str, tuple[Elsewhere, Future[None]]] = {}
        self._begin()

    def work(self, count: int) -> None:
        """Return when so many more writes were confirmed."""
        goal = self._confirmed() + count
        self._it.eventually(lambda: self._confirmed() >= goal, "clients whose calls are confirmed")

    def kill(self) -> None:
        """SIGKILL, and a new start."""
        self._server.kill()
        self._server.start()
        if isinstance(self._server, EmbeddedServer):
            self._begin()

    def end(self) -> list[load.Account]:
        """Have the clients end; what they did, and what is left."""
        for client, working in self._crew.values():
            client.call(load.stop)
            working.result(timeout=30)
            client.kill()
        over = time.monotonic() + LEASE + self._it.grace
        reader = self._it.client(self._server.url)
        return [
            load.Account(load.read(journal), _rest(self._it, reader, queue, over))
            for queue, journal in self._journals.items()
        ]

    def _begin(self) -> None:
        for queue, journal in self._journals.items():
            client = self._it.client_of(self._server)
            self._crew[queue] = client, client.start(load.work, queue, str(journal), LEASE)

    def _confirmed(self) -> int:
        for _, working in self._crew.values():
            if working.done():
                working.result()  # it never ends by itself, but by an error
        return sum(
            journal.read_bytes().count(b'"confirmed"')
            for journal in self._journals.values()
            if journal.exists()
        )


def _rest(it: Scene, broker: Broker, queue: str, over: float) -> dict[str, list[bytes]]:
    """Drain a queue whose last lease ends before `over`; the bodies of each id."""
    rest: dict[str, list[bytes]] = defaultdict(list)
    while True:
        for lease in it.drain(by=broker, queue=queue):
            rest[lease.envelope.id].append(lease.envelope.body)
        stats = broker.stats(queue)
        if time.monotonic() > over or (stats.ready, stats.scheduled, stats.leased) == (0, 0, 0):
            return rest
        time.sleep(0.02)  # between two looks
