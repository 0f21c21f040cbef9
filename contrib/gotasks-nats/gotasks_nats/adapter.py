"""NatsAdapter: what the conformance suite has to know of this backend beyond its URL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

from gotasks.broker import BrokerURL
from gotasks.conformance import Adapter, MissingHook, Server
from gotasks_nats.address import Address
from gotasks_nats.entry import QUEUE
from gotasks_nats.server import PrivateNats
from gotasks_nats.wire import Wire

_NO_STREAM, _NOT_FOUND = 10059, 10037


class NatsAdapter(Adapter):
    """Places are namespaces, each a stream. Servers of the suite's own are started from `nats-server` on PATH.

    What stops, kills, fills or disturbs a server is done to such a one only: the server of the URL may be others' too.
    """

    lease = 1.0

    def url(self, namespace: str) -> str:
        return _with(self.broker_url, namespace=namespace)

    def drop(self, url: str) -> None:
        _ask(url, f"STREAM.DELETE.{_address(url).stream}")

    def server_version(self, url: str) -> str:
        async def version(wire: Wire) -> str:
            return f"NATS {wire.version}"

        return cast("str", _wired(url, version))

    def endpoint(self, url: str) -> tuple[str, int]:
        return _address(url).servers[0]

    def impatient(self, url: str) -> tuple[str, float]:
        return _with(url, timeout="2"), 10.0

    @contextmanager
    def server(self, directory: Path) -> Iterator[Server]:
        if PrivateNats.binary() is None:
            raise MissingHook(
                "server(directory)",
                "there is no nats-server on PATH for a server that the suite may kill. Install nats-server",
            )
        params = BrokerURL(self.broker_url).params
        server = PrivateNats(
            directory, query=urlencode({name: each for name, each in params.items() if name != "tls"})
        )
        try:
            yield server.start()
        finally:
            server.kill()

    def put_raw(self, url: str, queue: str, data: bytes) -> None:
        subject = f"{_address(url).tasks}by-hand-{abs(hash((queue, data))):x}"

        async def put(wire: Wire) -> Any:
            number = 0
            while True:  # each is one more, even of bytes that were put before
                headers = {QUEUE: queue, "Nats-Expected-Last-Subject-Sequence": "0"}
                answer = await wire.ask(f"{subject}-{number}", data, headers=headers)
                if "error" not in answer:
                    return answer
                number += 1

        _wired(url, put)

    def evict(self, url: str, task_id: str) -> None:
        filtered = {"filter": f"{_address(url).tasks}{task_id}"}
        if not _ask(url, f"STREAM.PURGE.{_address(url).stream}", **filtered).get("purged"):
            raise LookupError(f"there is no record of {task_id}")

    def dump(self, url: str) -> Mapping[str, int]:
        address = _address(url)

        async def walk(wire: Wire) -> Mapping[str, int]:
            sizes: dict[str, int] = {}
            seq = 1
            while True:
                asked = json.dumps({"seq": seq, "next_by_subj": f"{address.tasks}*"}).encode()
                found = await wire.ask(f"$JS.API.STREAM.MSG.GET.{address.stream}", asked)
                if "error" in found:
                    if found["error"].get("err_code") in (_NO_STREAM, _NOT_FOUND):
                        return sizes
                    raise RuntimeError(found["error"].get("description"))
                message = found["message"]
                sizes[message["subject"]] = len(message.get("data", "")) + len(message.get("hdrs", ""))
                seq = message["seq"] + 1

        return cast("Mapping[str, int]", _wired(url, walk))

    def disturb(self, server: Server) -> None:
        server.stop()  # consumers without a name end with it, and connections
        server.start()

    @contextmanager
    def full(self, server: Server) -> Iterator[None]:
        stream = _address(server.url).stream
        info = _ask(server.url, f"STREAM.INFO.{stream}")
        # With a little room, since a server that has more than it may hold throws tasks away.
        with _changed(server.url, max_bytes=info["state"]["bytes"] + 100):
            yield

    @contextmanager
    def weakened(self, server: Server) -> Iterator[None]:
        with _changed(server.url, max_age=3600 * 10**9, duplicate_window=60 * 10**9):
            yield


@contextmanager
def _changed(url: str, **settings: Any) -> Iterator[None]:
    """Within the block the stream has other settings."""
    stream = _address(url).stream
    before = _ask(url, f"STREAM.INFO.{stream}")["config"]
    _ask(url, f"STREAM.UPDATE.{stream}", **{**before, **settings})
    try:
        yield
    finally:
        _ask(url, f"STREAM.UPDATE.{stream}", **before)


def _ask(url: str, what: str, **asked: Any) -> dict[str, Any]:
    """Ask JetStream; what it refuses is answered too, but for a stream that isn't there."""

    async def ask(wire: Wire) -> dict[str, Any]:
        answer = await wire.ask(f"$JS.API.{what}", json.dumps(asked).encode() if asked else b"")
        if "error" in answer and answer["error"].get("err_code") != _NO_STREAM:
            raise RuntimeError(f"{what}: {answer['error'].get('description')}")
        return answer

    return cast("dict[str, Any]", _wired(url, ask))


def _wired(url: str, do: Any) -> Any:
    """Do something with a connection of its own."""

    async def connected() -> Any:
        wire = Wire(_address(url))
        await wire.open()
        try:
            return await do(wire)
        finally:
            await wire.close()

    return asyncio.run(connected())


def _address(url: str) -> Address:
    return Address.of(BrokerURL(url))


def _with(url: str, **params: str) -> str:
    """The URL with these parameters, and all others as they were."""
    return f"{url.partition('?')[0]}?{urlencode({**BrokerURL(url).params, **params})}"
