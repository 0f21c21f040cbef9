"""Workloads of gotasks alone, on SQLite and in this environment; figures of so few tasks say little."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.catalogue import PEERS, SERVERS, chosen
from benchmarks.ours import OURS
from benchmarks.plan import plan, workloads
from benchmarks.stand import Stand

PYTHON = Path(sys.executable)
GOTASKS = next(peer for peer in PEERS if peer.key == ("sqlite", "gotasks"))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["args-10k", "backlog", "records", "queues"])
def test_a_workload_yields_its_figures(tmp_path: Path, name: str) -> None:
    (workload,) = [each for each in OURS if each.name == name]
    stand = Stand(GOTASKS, PYTHON, f"sqlite:///{tmp_path / 'tasks.db'}", tmp_path, 60 * workload.steps)
    try:
        stand.prepare()
        values = workload.measure(stand, 60)
        assert values.keys() == {figure.name for figure in workload.figures}
        assert all(value > 0 for value in values.values())
        assert stand.record.repeats() == 0
    finally:
        stand.close()


@pytest.mark.timeout(120)
def test_handlers_that_compute_are_drained_by_one_process_and_by_two(tmp_path: Path) -> None:
    (workload,) = [each for each in OURS if each.name == "cpu-20"]
    stand = Stand(GOTASKS, PYTHON, f"sqlite:///{tmp_path / 'tasks.db'}", tmp_path, 120)
    try:
        stand.prepare()
        values = workload.measure(stand, 60)
    except ValueError as error:  # a busy machine may bring the second process up when all is done
        assert "1 of 2 worker processes" in str(error) or "tasks were left" in str(error)  # noqa: PT017
    else:
        assert list(values) == ["cpu-20-1", "cpu-20-2", "cpu-20-times"]  # SQLite has no server
        assert values["cpu-20-1"] < 1.25 / 0.02  # a second has no more of them for one core
    finally:
        assert stand.record.marked() == 120
        stand.close()


def test_they_are_done_by_gotasks_alone_and_those_that_take_long_in_the_first_round() -> None:
    steps = list(plan(chosen(list(SERVERS), []), OURS, 2, ceilings=False))
    assert {step.peer.name for step in steps if step.peer} == {"gotasks"}
    long = [(step.round, step.server) for step in steps if step.workload and step.workload.name == "backlog"]
    assert long == [(1, "sqlite"), (1, "postgres"), (1, "redis")]
    assert [step.round for step in steps if step.workload and step.workload.name == "cpu-20"] == [1] * 4 + [
        2
    ] * 4


def test_every_broker_that_processes_share_is_asked_how_two_of_them_scale() -> None:
    steps = plan(chosen(list(SERVERS), []), workloads(["cpu-20", "cpu-1"]), 1, ceilings=False)
    assert {step.server for step in steps} == set(SERVERS)


def test_a_million_is_measured_where_20_000_tasks_are_drained() -> None:
    (backlog,) = workloads(["backlog"])

    class Asked(Stand):
        """Notes what it is asked for."""

        def __init__(self) -> None:
            pass

        def crowd(self, what: str, size: int, samples: int) -> dict[str, float]:
            return {"asked": size}

    assert backlog.measure(Asked(), backlog.tasks(20_000, 1.0))["backlog-asked"] == 1_000_000
