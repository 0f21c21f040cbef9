"""The demo where nobody names a broker: worker processes on a SQLite file, which is gone afterwards."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest

from gotasks_sql.schema import DONE
from tests.backends.demo_process import Demo, held_by_the_killed_one, make_tree, workers_are_gone

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder whose name would mean something in a URL."""
    folder = tmp_path / "here? %41#ü"
    folder.mkdir()
    return folder


def is_good(table: str) -> bool:
    counts = json.loads(table)
    found = [counts[each] for each in ("files", "fatal", "lost", "doubled", "started_twice")]
    return found == [60, 1, 0, 0, 0]


def file_of(said: str) -> str:
    found = re.search(r"^the tasks wait in (\S+), which is removed at the end$", said, re.MULTILINE)
    assert found is not None, said
    return found[1]


def test_a_killed_worker_loses_nothing(tree: Path, folder: Path, tmp_path: Path) -> None:
    demo = Demo(tree, "--json", folder=folder, scratch=tmp_path / "scratch")
    stdout, lines = demo.ends_well()
    assert is_good(stdout), stdout
    assert json.loads(stdout)["crashes"] >= held_by_the_killed_one(lines) >= 1
    assert f"Broker sqlite:///{file_of(lines)}, 2 worker processes" in lines
    workers_are_gone(lines)
    assert list(folder.iterdir()) == []


def test_two_in_one_folder_don_t_meet(tree: Path, folder: Path, tmp_path: Path) -> None:
    demos = [Demo(tree, "--json", folder=folder, scratch=tmp_path / name) for name in "ab"]
    ended = [each.ends_well() for each in demos]
    assert all(is_good(stdout) for stdout, _ in ended)
    assert len({file_of(lines) for _, lines in ended}) == 2
    assert list(folder.iterdir()) == []


def test_ctrl_c_removes_the_file(tree: Path, folder: Path, tmp_path: Path) -> None:
    there: list[str] = []
    demo = Demo(tree, folder=folder, scratch=tmp_path / "scratch")
    said = demo.interrupted(meanwhile=lambda: there.extend(each.name for each in folder.iterdir()))
    assert file_of(said) in there
    assert list(folder.iterdir()) == []


def test_a_folder_that_takes_no_file(tree: Path, tmp_path: Path) -> None:
    nowhere = Path("/proc")  # takes none of anybody, root included
    if not nowhere.is_dir():
        pytest.skip("there is no /proc on this system")
    demo = Demo(tree, "--json", folder=nowhere, scratch=tmp_path / "scratch")
    stdout, lines = demo.ends_well()
    assert is_good(stdout), stdout
    assert held_by_the_killed_one(lines)
    assert "this folder takes no file (" in lines
    assert Path(file_of(lines)).is_relative_to(tmp_path / "scratch")


def test_without_sqlalchemy_it_runs_in_memory_and_says_what_to_install(
    tree: Path, folder: Path, tmp_path: Path
) -> None:
    without = tmp_path / "without"
    without.mkdir()
    (without / "sqlalchemy.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'sqlalchemy'\", name='sqlalchemy')"
    )
    demo = Demo(tree, "--json", folder=folder, scratch=tmp_path / "scratch", PYTHONPATH=str(without))
    stdout, lines = demo.ends_well()
    assert is_good(stdout), stdout
    assert "needs the 'sqlalchemy' package: pip install 'gotasks[sql]'" in lines
    assert "Broker memory://, a worker in this process" in lines
    assert list(folder.iterdir()) == []


def test_a_file_that_somebody_names_stays_his(tree: Path, folder: Path, tmp_path: Path) -> None:
    demo = Demo(
        tree, "--json", folder=folder, scratch=tmp_path / "scratch", GOTASKS_BROKER_URL="sqlite:///mine.db"
    )
    stdout, lines = demo.ends_well()
    assert is_good(stdout), stdout
    assert "removed" not in lines
    file = sqlite3.connect(folder / "mine.db")
    states = {state for (state,) in file.execute("SELECT state FROM gotasks_tasks")}
    file.close()
    assert states == {DONE}  # records, which go after a minute
