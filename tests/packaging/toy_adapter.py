"""The toy's adapter: it has no server, and nobody else can get at what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from gotasks.conformance import EmbeddedAdapter, NotApplicable, Server


class ToyAdapter(EmbeddedAdapter):
    def url(self, namespace: str) -> str:
        return self.broker_url  # each broker is a place of its own

    def put_raw(self, url: str, queue: str, data: bytes) -> None:
        raise NotApplicable("nobody but the broker can put anything there")

    def evict(self, url: str, task_id: str) -> None:
        raise NotApplicable("nobody but the broker can take anything away")

    def dump(self, url: str) -> Mapping[str, int]:
        raise NotApplicable("what it stores ends with it")

    def full(self, server: Server) -> AbstractContextManager[None]:
        raise NotApplicable("it has no server")
