"""FilesystemAdapter: what the conformance suite has to know of this backend beyond its URL."""

from __future__ import annotations

import resource
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from gotasks.broker import BrokerURL
from gotasks.conformance import EmbeddedAdapter, EmbeddedServer, Server
from gotasks_filesystem.files import delete


class FilesystemAdapter(EmbeddedAdapter):
    """There is no server and no network: the processes that call the broker are all there is."""

    lease = 0.5

    def url(self, namespace: str) -> str:
        path, question, query = self.broker_url.partition("?")
        return f"{path.rstrip('/')}/{namespace}{question}{query}"

    def drop(self, url: str) -> None:
        delete(_root(url))

    def server(self, directory: Path) -> AbstractContextManager[Server]:
        _, question, query = self.broker_url.partition("?")
        return EmbeddedServer(f"filesystem://{directory}/tasks{question}{query}")

    def put_raw(self, url: str, queue: str, data: bytes) -> None:
        directory = _root(url) / "queues" / f"={queue}" / "ready"
        directory.mkdir(parents=True, exist_ok=True)
        name = f"dropped by hand {secrets.token_hex(8)}"
        (directory / f".{name}").write_bytes(data)  # hidden until all of it is there
        (directory / f".{name}").rename(directory / name)

    def evict(self, url: str, task_id: str) -> None:
        (_root(url) / "tasks" / task_id).unlink()

    def dump(self, url: str) -> Mapping[str, int]:
        root = _root(url)
        files = [path for path in root.rglob("*") if path.is_file() and path.name != "lock"]
        return {str(path.relative_to(root)): path.stat().st_size for path in files}

    @contextmanager
    def full(self, server: Server) -> Iterator[None]:
        """No process of ours can write to a file: as on a full disk, but for this process alone."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _root(url: str) -> Path:
    return Path(BrokerURL(url).path)
