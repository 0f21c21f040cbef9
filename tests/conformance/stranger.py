"""A stranger's test file with a BrokerSuite in it, and how his pytest is called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

SUITE = """
from gotasks.conformance import BrokerSuite
from tests.conformance import brokers

class TestIt(BrokerSuite):
    quick = True
    {attributes}
"""


class Command(NamedTuple):
    """A program, and where and with what environment it is run."""

    words: list[str]
    directory: Path
    environment: dict[str, str]


def pytest_of(directory: Path, attributes: str, *words: str) -> Command:
    """Put the file into the directory; give the command that runs it."""
    (directory / "test_it.py").write_text(SUITE.format(attributes=attributes))
    return Command(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "-q", *words, "test_it.py"],
        directory,
        {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
