"""The proof that the suite can fail: every faulty broker is caught, and every expectation is needed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from gotasks.conformance.faulty.everything import FAULTS
from gotasks.conformance.row import Level
from gotasks.conformance.rows.everything import ROWS


def matrix(*words: str, timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gotasks.conformance.matrix", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


@pytest.mark.timeout(900)
def test_every_faulty_broker_is_caught_and_no_good_one(figures: Callable[[str], None]) -> None:
    done = matrix("--jobs=4", timeout=880)

    figures(done.stdout.splitlines()[-1])
    problems = [line for line in done.stdout.splitlines() if line.startswith("PROBLEM")]
    assert problems == []
    assert done.returncode == 0, done.stderr
    killed = re.search(r"faulty brokers killed: (\d+)/(\d+)", done.stdout)
    assert killed is not None
    assert int(killed[1]) == int(killed[2]) == len(FAULTS) >= 60


@pytest.mark.timeout(300)
def test_without_any_one_expectation_the_matrix_is_red(figures: Callable[[str], None]) -> None:
    """For ten required rows; which, the seed says."""
    done = matrix("--expectations=10", "--jobs=4", timeout=280)

    lines = done.stdout.splitlines()
    figures(f"{lines[0]}; {lines[-1]}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_row_that_is_not_proven_says_why() -> None:
    caught = {row_id for fault in FAULTS.values() for row_id in fault.rows}

    assert {row.id for row in ROWS.values() if row.id not in caught} == {
        row.id for row in ROWS.values() if row.unproven
    }


def test_every_row_says_what_it_wants() -> None:
    for row in ROWS.values():
        assert len(row.text) > 40, row.id
        assert row.level is not Level.CAPABILITY or row.needs, row.id
