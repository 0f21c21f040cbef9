"""Scripts and workers in other processes: gotasks on SQLite, in this environment instead of one of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.catalogue import PEERS, Peer
from benchmarks.protocol import ScriptFailed, Unsupported, ask
from benchmarks.stand import Stand
from benchmarks.worker import Worker, WorkerFailed
from benchmarks.workloads import WORKLOADS

PYTHON = Path(sys.executable)
OURS = next(peer for peer in PEERS if peer.key == ("sqlite", "gotasks"))


def stand(peer: Peer, folder: Path, url: str, cells: int) -> Iterator[Stand]:
    made = Stand(peer, PYTHON, url, folder, cells)
    yield made
    made.close()


@pytest.mark.parametrize("name", ["bulk", "drain", "chains"])
def test_a_workload_yields_its_figure_and_proves_that_all_ran_once(tmp_path: Path, name: str) -> None:
    (workload,) = [each for each in WORKLOADS if each.name == name]
    for ours in stand(OURS, tmp_path, f"sqlite:///{tmp_path / 'tasks.db'}", 60 * workload.steps):
        ours.prepare()
        values = workload.measure(ours, 60)
        assert list(values) == [figure.name for figure in workload.figures]
        assert all(value > 0 for value in values.values())
        assert ours.record.marked() == (0 if name == "bulk" else 60 * workload.steps)
        assert ours.record.repeats() == 0


def test_tasks_that_are_left_are_noticed(tmp_path: Path) -> None:
    for ours in stand(OURS, tmp_path, f"sqlite:///{tmp_path / 'tasks.db'}", 3):
        ours.prepare()
        ours.enqueue("one", 3)
        with pytest.raises(ScriptFailed, match="3 tasks are still stored"):
            ours.settle(timeout=0)


def test_a_server_that_a_peer_has_nothing_for_is_unsupported(tmp_path: Path) -> None:
    for ours in stand(OURS, tmp_path, "nowhere://localhost", 1):
        with pytest.raises(Unsupported, match="nowhere"):
            ours.prepare()


def test_a_script_that_fails_says_why(tmp_path: Path) -> None:
    for ours in stand(OURS, tmp_path, f"sqlite:///{tmp_path / 'tasks.db'}", 1):
        with pytest.raises(ScriptFailed, match="no job 'no-such-job' is registered"):
            ours.enqueue("no-such-job", 1)


def test_a_script_that_ends_without_an_answer_fails(tmp_path: Path) -> None:
    with pytest.raises(ScriptFailed, match="No module named benchmarks"):
        ask(PYTHON, "benchmarks.nothing", {}, {"do": "reset"}, timeout=30)


def test_a_worker_that_ends_is_noticed_with_its_last_words(tmp_path: Path) -> None:
    worker = Worker([["/bin/sh", "-c", "echo broken; exit 3"]], {}, tmp_path)
    try:
        with pytest.raises(WorkerFailed, match="ended with 3: broken"):
            while True:
                worker.check()
    finally:
        worker.stop()


def test_a_place_is_empty_after_a_reset_and_gone_after_a_removal(tmp_path: Path) -> None:
    def place(what: str) -> Path:
        answer = ask(
            PYTHON, "benchmarks.places.sqlite", {}, {"do": what, "url": f"sqlite:///{tmp_path}"}, timeout=30
        )
        return Path(answer["url"].removeprefix("sqlite:///"))

    file = place("reset")
    assert file.parent.is_dir()
    file.write_text("left over")
    assert not place("reset").exists()
    place("remove")
    assert list(tmp_path.iterdir()) == []
