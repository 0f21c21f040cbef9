"""A broker without a server: it lives in the processes that call it, and keeps one file."""

from __future__ import annotations

import fcntl
import pickle
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from gotasks.broker import Broker, BrokerURL, Capability, Envelope, Lease, QueueStats, Record, State, Write
from gotasks.conformance.adapter import Adapter, EmbeddedServer, NotApplicable, Server
from gotasks.conformance.kit.open_memory import OpenMemory
from gotasks.errors import BrokerClosed

if TYPE_CHECKING:
    from typing_extensions import Self


class FileBroker(Broker):
    """`files:///path`: each call reads the file, does as the memory broker does, and writes it anew, under a lock."""

    def __init__(self, path: Path) -> None:
        inner = OpenMemory()
        self.capabilities = inner.capabilities | Capability.SHARED
        self.limits = msgspec.structs.replace(inner.limits, durability="kill")
        self._path = path
        self._closed = False

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        url.only(set())
        return cls(Path(url.path))

    @contextmanager
    def _inside(self) -> Iterator[OpenMemory]:
        if self._closed:
            raise BrokerClosed("this broker is closed")
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            memory = OpenMemory()
            memory.restore(self.read())
            yield memory
            self.write(memory.holdings())

    def read(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        tasks: list[dict[str, Any]] = pickle.loads(self._path.read_bytes())  # noqa: S301 - its own
        return tasks

    def write(self, tasks: list[dict[str, Any]]) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(pickle.dumps(tasks))
        fresh.replace(self._path)

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        with self._inside() as memory:
            return memory.enqueue(envelopes)

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        end = time.monotonic() + wait
        while True:
            with self._inside() as memory:
                leases = memory.acquire(queue, limit=limit, wait=0, lease_for=lease_for, ids=ids)
            if leases or ids is not None or time.monotonic() >= end:
                return leases
            time.sleep(0.005)  # nobody tells it of a change

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        with self._inside() as memory:
            return memory.extend(leases, lease_for=lease_for)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        with self._inside() as memory:
            return memory.checkpoint(writes)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        with self._inside() as memory:
            return memory.ack(writes, keep_for=keep_for)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        with self._inside() as memory:
            return memory.release(writes)

    def stats(self, queue: str) -> QueueStats:
        with self._inside() as memory:
            return memory.stats(queue)

    def purge(self, queue: str) -> int:
        with self._inside() as memory:
            return memory.purge(queue)

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        with self._inside() as memory:
            return memory.browse(queue, state=state, limit=limit, after=after)

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        with self._inside() as memory:
            return memory.get(ids)

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        with self._inside() as memory:
            return memory.cancel(ids, keep_for=keep_for)

    def close(self) -> None:
        self._closed = True


class LazyFileBroker(FileBroker):
    """Keeps what it stores to itself until it is closed, as one that waits for a good moment to write."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._tasks: list[dict[str, Any]] | None = None

    def read(self) -> list[dict[str, Any]]:
        return super().read() if self._tasks is None else self._tasks

    def write(self, tasks: list[dict[str, Any]]) -> None:
        self._tasks = tasks

    def close(self) -> None:
        if self._tasks is not None:
            super().write(self._tasks)
        super().close()


class InPlaceFileBroker(FileBroker):
    """Writes over its file, which takes a while: a kill in the middle of that leaves half of it."""

    def write(self, tasks: list[dict[str, Any]]) -> None:
        data = pickle.dumps(tasks)
        half = len(data) // 2
        with self._path.open("wb", buffering=0) as file:
            file.write(data[:half])
            time.sleep(0.01)
            file.write(data[half:])

    def read(self) -> list[dict[str, Any]]:
        try:
            return super().read()
        except (EOFError, pickle.UnpicklingError, ValueError, IndexError, KeyError):
            return []


class FileAdapter(Adapter):
    """For a `FileBroker`."""

    broker_class: type[Broker] | None = FileBroker
    lease = 0.5

    def url(self, namespace: str) -> str:
        return f"{self.broker_url}-{namespace}"

    def drop(self, url: str) -> None:
        path = Path(urlsplit(url).path)
        for each in (path, path.with_suffix(".lock"), path.with_suffix(".new")):
            each.unlink(missing_ok=True)

    def endpoint(self, url: str) -> tuple[str, int]:
        raise NotApplicable("it has no network")

    def server(self, directory: Path) -> AbstractContextManager[Server]:
        return EmbeddedServer(f"files://{directory}/tasks")

    def disturb(self, server: Server) -> None:
        raise NotApplicable("nothing is prepared anywhere")

    def full(self, server: Server) -> AbstractContextManager[None]:
        raise NotApplicable("a disk of its own would have to be made full")

    def weakened(self, server: Server) -> AbstractContextManager[None]:
        raise NotApplicable("it has no settings")
