"""The durability rows on a broker that has no server: what is killed are the processes that call it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gotasks.broker import Broker
from gotasks.conformance.checker import run_row
from gotasks.conformance.outcome import Outcome, Result
from gotasks.conformance.rows.everything import ROWS
from tests.conformance.files import FileAdapter, FileBroker, InPlaceFileBroker, LazyFileBroker


def run(row_id: str, directory: Path, broker_class: type[Broker] = FileBroker) -> Outcome:
    adapter = FileAdapter(f"files://{directory}/broker")
    adapter.broker_class = broker_class
    return run_row(ROWS[row_id], adapter, quick=True)


@pytest.mark.parametrize("row_id", ["SRV-01", "SRV-02", "CKP-08", "DLY-04", "NRE-07"])
def test_an_embedded_broker_is_killed_with_the_processes_that_call_it(row_id: str, tmp_path: Path) -> None:
    outcome = run(row_id, tmp_path)
    assert (outcome.result, outcome.reason) == (Result.PASS, "")
    assert outcome.figures.get("kills", 2)


@pytest.mark.parametrize("row_id", ["SRV-02", "CKP-08"])
def test_one_that_writes_later_is_caught(row_id: str, tmp_path: Path) -> None:
    assert run(row_id, tmp_path, LazyFileBroker).result is Result.FAIL


def test_one_that_writes_over_its_file_is_caught_by_kills_in_the_middle_of_calls(tmp_path: Path) -> None:
    outcome = run("SRV-02", tmp_path, InPlaceFileBroker)
    assert outcome.result is Result.FAIL
    assert "gone" in outcome.reason


@pytest.mark.parametrize("row_id", ["SRV-04", "SRV-05", "SRV-06"])
def test_what_it_has_not_is_said(row_id: str, tmp_path: Path) -> None:
    outcome = run(row_id, tmp_path)
    assert outcome.result is Result.UNSUPPORTED
    assert outcome.reason.startswith("not applicable: ")
