"""Fixtures of the chaos tests: worker processes, their history, and the app that enqueues for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotasks import App
from tests.chaos import jobs
from tests.chaos.history import Reader
from tests.chaos.processes import Fleet

_figures = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_figures] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(_figures, []):
        terminalreporter.write_line(f"chaos: {line}")


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say something at the end of the run, whether the test passes or fails."""
    lines = request.config.stash.setdefault(_figures, [])
    name = request.node.name
    return lambda text: lines.append(f"{name}: {text}")


@pytest.fixture
def history(tmp_path: Path) -> Iterator[Reader]:
    """What the worker processes of this test do."""
    reader = Reader(tmp_path / "history.jsonl")
    yield reader
    reader.close()


@pytest.fixture
def fleet(tmp_path: Path, redis_url: str, history: Reader) -> Iterator[Fleet]:
    """Worker processes on a Redis namespace of this test; all are gone before it is deleted."""
    with Fleet(tmp_path, redis_url, tmp_path / "history.jsonl") as fleet:
        yield fleet


@pytest.fixture
def app(redis_url: str) -> Iterator[App]:
    """The app of the workers, in this process."""
    app = jobs.build()
    app.use_broker(redis_url)
    yield app
    app.close()
