"""Brokers for the tests, closed after each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotasks.broker import BrokerURL
from gotasks_filesystem import FilesystemBroker


@pytest.fixture
def make_broker() -> Iterator[Callable[..., FilesystemBroker]]:
    made = []

    def make(path: Path, query: str = "") -> FilesystemBroker:
        made.append(FilesystemBroker.from_url(BrokerURL(f"filesystem://{path}{query}")))
        return made[-1]

    yield make
    for each in made:
        each.close()
