"""Fixtures of the chaos tests: worker processes on Redis, their history, and the app that enqueues for them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gotasks.conformance.kit.crew import Crew

#: The queue of a crew.
QUEUE = "chaos"

#: Whether storms kill as often as the pages say, and not as often as CI has the time for.
FULL = os.environ.get("GOTASKS_TEST_STORMS") == "full"


@pytest.fixture
def crew(tmp_path: Path, redis_url: str) -> Iterator[Crew]:
    """Workers on a Redis namespace of this test; all are gone before it is deleted."""
    with Crew(tmp_path, redis_url, [QUEUE]) as crew:
        yield crew
        # pytest shows it if the test has failed.
        sys.stdout.write(crew.output)
