"""SQLiteAdapter: there is no server; the processes that have the file open are all there is."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from gotasks.broker import BrokerURL
from gotasks.conformance.adapter import EmbeddedAdapter, EmbeddedServer, NotApplicable, Server, Transaction
from gotasks_sql.address import Address
from gotasks_sql.conformance import tables, transactions


class SQLiteAdapter(EmbeddedAdapter):
    """Places are files beside the one of the URL."""

    lease = 0.5

    def url(self, namespace: str) -> str:
        _, question, query = self.broker_url.partition("?")
        # Whole: processes of the suite work in folders of their own.
        place = str(_path(self.broker_url)).removesuffix(".db")
        return f"sqlite:///{place}-{namespace}.db{question}{query}"

    def drop(self, url: str) -> None:
        for end in ("", "-wal", "-shm"):
            Path(f"{_path(url)}{end}").unlink(missing_ok=True)

    def server_version(self, url: str) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    def server(self, directory: Path) -> AbstractContextManager[Server]:
        _, question, query = self.broker_url.partition("?")
        return EmbeddedServer(f"sqlite:///{directory}/tasks.db{question}{query}")

    def put_raw(self, url: str, queue: str, data: bytes) -> None:
        tables.put_raw(url, queue, data)

    def evict(self, url: str, task_id: str) -> None:
        raise NotApplicable("a task's record and its place in the queue are one row")

    def dump(self, url: str) -> Mapping[str, int]:
        return tables.dump(url)

    def transaction(self, url: str) -> AbstractContextManager[Transaction]:
        return transactions.transaction(url)

    @contextmanager
    def full(self, server: Server) -> Iterator[None]:
        """No file of this process can grow: as on a full disk, but for this process alone."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = max(Path(f"{_path(server.url)}{end}").stat().st_size for end in ("", "-wal"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _path(url: str) -> Path:
    return Path(str(Address.of(BrokerURL(url)).url.database))
