"""BrokerSuite as a stranger's pytest runs it: nothing is silent, and nothing that wasn't shown passes."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from gotasks.conformance.rows.everything import ROWS
from tests.conformance.beside import THE_CLASS, Beside
from tests.conformance.stranger import pytest_of


def run(directory: Path, attributes: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = pytest_of(directory, attributes, *words)
    return subprocess.run(
        command.words,
        cwd=command.directory,
        env=command.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_ids_are_the_rows(tmp_path: Path) -> None:
    listed = run(tmp_path, 'broker_url = "memory://"', "--collect-only").stdout

    for row_id in ROWS:
        assert f"TestIt::test_row[{row_id}]" in listed
    assert "TestIt::test_profile" in listed


def test_one_row(tmp_path: Path) -> None:
    done = run(tmp_path, 'broker_url = "memory://"', "-k", "CKP-01")

    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_a_row_that_fails_says_what_the_contract_wants_and_what_was_seen(tmp_path: Path) -> None:
    done = run(tmp_path, "adapter = brokers.OverClaimingAdapter('memory://')", "-k", "ACK-03")

    assert done.returncode == 1
    assert f"ACK-03 {ROWS['ACK-03'].title}" in done.stdout
    assert ROWS["ACK-03"].text.splitlines()[0] in done.stdout


def test_a_missing_hook_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "adapter = brokers.HooklessAdapter('memory://')", "-k", "CKP-07")

    assert "not-run: the adapter has no dump(url)" in done.stdout


def test_the_profile_needs_every_row(tmp_path: Path) -> None:
    done = run(tmp_path, 'broker_url = "memory://"', "-k", "CKP-01 or test_profile")

    assert done.returncode == 1
    assert "weren't run in this process" in done.stdout


def test_a_class_without_a_broker(tmp_path: Path) -> None:
    done = run(tmp_path, "pass", "-k", "CKP-01")

    assert done.returncode == 1
    assert "give the class a broker_url, or an adapter" in done.stdout


def test_nothing_selected_is_a_failure(tmp_path: Path) -> None:
    assert run(tmp_path, 'broker_url = "memory://"', "-k", "CKP-99").returncode == 5


def test_a_plug_in_that_cannot_be_imported(tmp_path: Path) -> None:
    done = run(tmp_path, "broker_url = 'nowhere://x'", "-k", "CKP-01")

    assert done.returncode == 1
    assert "no installed package has a broker for nowhere://" in done.stdout


@pytest.mark.timeout(600)
def test_the_whole_class(beside: Mapping[str, Beside]) -> None:
    code, said = beside[THE_CLASS].ended()

    assert code == 0, said
    skips = [line for line in said.splitlines() if line.startswith("SKIPPED")]
    assert all("unsupported: " in line for line in skips), skips
