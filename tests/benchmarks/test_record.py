"""The record of starts, and the rate that is read from it."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from benchmarks.record import Record, Start, rate


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    made = Record.create(tmp_path / "record", 5)
    yield made
    made.close()


def test_starts_are_there_by_time_with_their_process(record: Record) -> None:
    record.mark(3)
    record.mark(0)
    first, second = record.starts()
    assert first.at <= second.at
    assert first.at == record.at(3)
    assert record.at(1) == 0.0


def test_starts_of_some_cells_are_those_of_a_part_of_the_work(record: Record) -> None:
    for cell in range(4):
        record.mark(cell)
    assert [start.at for start in record.starts(range(2, 5))] == [record.at(2), record.at(3)]


def test_a_gap_holds_back_what_counts_as_started(record: Record) -> None:
    record.mark(0)
    record.mark(2)
    assert record.started() == 1
    assert record.marked() == 2
    record.mark(1)
    assert record.started() == 3


def test_a_second_start_is_counted_and_keeps_the_first_time(record: Record) -> None:
    record.mark(0)
    at = record.at(0)
    record.mark(0)
    record.mark(0)
    record.mark(1)
    assert record.repeats() == 2
    assert record.at(0) == at


def _mark(path: Path, cell: int) -> None:
    Record(path, 5).mark(cell)


def test_processes_share_it(record: Record, tmp_path: Path) -> None:
    spawn = get_context("spawn")
    for cell in (0, 1):
        process = spawn.Process(target=_mark, args=(tmp_path / "record", cell))
        process.start()
        process.join(30)
    assert record.started() == 2
    assert len({start.process for start in record.starts()}) == 2


def test_a_rate_is_from_the_first_start_to_the_last() -> None:
    starts = [Start(10 + number / 100, 1) for number in range(101)]
    assert rate(starts, 1) == pytest.approx(100)


def test_a_rate_of_two_processes_begins_when_both_have_started_something() -> None:
    alone = [Start(number / 10, 1) for number in range(10)]
    both = [Start(1 + number / 100, 1 + number % 2) for number in range(101)]
    assert rate(alone + both, 2) == pytest.approx(99 / 0.99)


def test_a_rate_leaves_out_what_has_only_filled_the_slots() -> None:
    filled = [Start(1.0, 1) for _ in range(10)]
    worked = [Start(1 + number / 100, 1) for number in range(1, 101)]
    assert rate(filled + worked, 1, burst=10) == pytest.approx(100)
    assert rate(filled + worked, 1) == pytest.approx(109)


def test_a_rate_of_too_little_is_refused() -> None:
    starts = [Start(number, 1) for number in range(20)]
    with pytest.raises(ValueError, match="1 of 2 worker processes had tasks"):
        rate(starts, 2)
    with pytest.raises(ValueError, match="only 5 tasks were left"):
        rate(starts[:5], 1)
