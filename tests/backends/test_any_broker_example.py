"""examples/any_broker.py does the same on every broker, and nothing but the URL differs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gotasks.broker import Capability
from gotasks.discovery import open_broker
from tests.conftest import BACKENDS

EXAMPLE = Path(__file__).parents[2] / "examples" / "any_broker.py"

#: What it prints everywhere, and what it prints as well where tasks have records.
EVERYWHERE = [
    "shipped: {'order': 42, 'card': 'valid', 'charge': 'ch_42', 'courier': 7}",
    "failed: charge ValueError: the card has expired",
    "shipped: {'order': 43, 'card': 'valid', 'charge': 'ch_43', 'courier': 7}",
]
WITH_RECORDS = (
    "results: {'order': 42, 'card': 'valid', 'charge': 'ch_42', 'courier': 7} "
    "{'order': 43, 'card': 'valid', 'charge': 'ch_43', 'courier': 7}"
)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_program_on_every_broker(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url: str = request.getfixturevalue(f"{backend}_url")
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        cwd=tmp_path,
        env={**os.environ, "GOTASKS_BROKER_URL": url, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    broker = open_broker(url)
    recorded = Capability.RECORDS in broker.capabilities
    assert recorded == (backend != "rabbitmq")
    assert done.stdout.splitlines() == EVERYWHERE + [WITH_RECORDS] * recorded
    assert [broker.stats(queue).ready for queue in ("orders", "fatal")] == [0, 0]
    broker.close()
