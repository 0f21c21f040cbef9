from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from gotasks import codec
from gotasks.cli import main
from gotasks.demo.chain import hiccups
from gotasks.demo.crew import Crew
from gotasks.demo.files import Files, shown, to_path, to_text
from gotasks.demo.journal import Journal, Tally
from gotasks.demo.measure import Measure
from gotasks.demo.plan import Plan
from gotasks.demo.report import Line, Report, read
from gotasks.demo.verdict import Verdict, judge, started_twice
from gotasks.errors import ConfigurationError, GotasksError
from gotasks.events import StepRetried, TaskBuried, TaskCrashed
from gotasks.fatal import FatalTask
from gotasks.task import Task

STRANGE = (
    "with space",
    "ünï ☃",
    "new\nline",
    "\x1b[31mred",
    "100%41",
    "[bold]x",
    "-rf",
    os.fsdecode(b"\xff\xfe%ff"),
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with files of strange names and contents, and with what isn't a regular file."""
    root = tmp_path / "tree"
    (root / os.fsdecode(b"fold\xe9r")).mkdir(parents=True)
    for name in STRANGE:
        (root / name).write_text(f"{name!r}\nand more", "utf-8", "replace")
        (root / os.fsdecode(b"fold\xe9r") / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    (root / "empty").touch()
    (root / "binary").write_bytes(bytes(range(256)) * 5000)
    (root / "self").symlink_to("self")
    (root / "up").symlink_to("..")
    (root / "link").symlink_to("empty")
    os.mkfifo(root / "fifo")
    return root


def demo(*args: object, **environment: str) -> Result:
    return CliRunner().invoke(
        main, ["demo", *map(str, args)], env={"GOTASKS_BROKER_URL": "memory://", **environment}
    )


def counts(result: Result) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(result.stdout)
    return table


# -- the whole of it, on the memory broker --------------------------------------------------------


def test_every_file_is_counted_and_the_missing_one_is_fatal(tree: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    result = demo(tree, "--report", report, "--seed", 3, "--json")
    assert result.exit_code == 0, result.output
    files = 2 * len(STRANGE) + 2
    retries = sum(len(hiccups(3, path)) for path in Files.under(str(tree)).stamps)
    table = counts(result)
    assert table.pop("seconds") > 0
    assert table.pop("tasks/s") > 0
    assert table == {
        "files": files,
        "tasks": files + 1,
        "steps": 3 * files + 1 + retries,
        "retries": retries,
        "crashes": 0,
        "fatal": 1,
        "lost": 0,
        "doubled": 0,
        "started_twice": 0,
    }
    lines = [line for line in read(report) if line is not None]
    assert len(lines) == files
    for line in lines:
        content = to_path(line.path).read_bytes()
        found = (line.words, line.lines, line.checksum)
        assert found == (len(content.split()), content.count(b"\n"), hashlib.sha256(content).hexdigest())
        assert line.kind == ("binary" if b"\0" in content else "text")


def test_without_a_path_it_takes_the_package() -> None:
    result = demo()
    assert result.exit_code == 0, result.output
    assert "gone.txt at read: FileNotFoundError" in result.stdout
    assert "worker in this process" in result.stdout


def test_one_file_is_enough(tree: Path) -> None:
    result = demo(tree / "binary", "--json")
    assert result.exit_code == 0, result.output
    assert counts(result)["files"] == 1


@pytest.mark.parametrize(
    "options", ["without=RECORDS", "without=BROWSE,RECORDS", "without=ATOMIC_MOVE", "handoff=true"]
)
def test_it_runs_on_a_lesser_broker(tree: Path, options: str) -> None:
    result = demo(tree, "--broker", f"memory://?{options}")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "name, why",
    [
        ("nothing", "No such file"),
        ("tree/self", "ymlink"),
        ("tree/fifo", "neither a file nor a directory"),
        ("hollow", "there is no file under"),
    ],
)
def test_a_path_that_cannot_be_used_is_one_sentence(tree: Path, tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "hollow").mkdir()
    result = demo(tmp_path / name)
    assert result.exit_code == 2
    assert why in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_nobodys_file_is_overwritten_by_the_report(tree: Path) -> None:
    result = demo(tree, "--report", tree / "empty")
    assert result.exit_code == 2
    assert "File exists" in result.stderr


@pytest.mark.timeout(120)
def test_ctrl_c_stops_it_politely(tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(20_000):
        (many / str(number)).touch()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "gotasks", "demo", str(many), "--broker", "memory://"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    with process.stdout as output:
        for line in output:
            if " of 20001 tasks" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = output.read()
    assert process.wait() == 130, rest
    assert "stopped" in rest
    assert "Traceback" not in rest
    assert list(scratch.iterdir()) == []


# -- is a loss really seen? -----------------------------------------------------------------------


def fatal_task(task_id: str) -> FatalTask:
    now = codec.now()
    empty = msgspec.Raw(b"{}")
    task = Task(
        task_id=task_id,
        created_at=now,
        updated_at=now,
        queue_name="q",
        job_name="j",
        args_map=empty,
        current_handler_index=0,
        original_args_map=empty,
    )
    return FatalTask(task_id, task, codec.encode(task))


class Case:
    """Three files that went well, and the bad one."""

    def __init__(self, folder: Path) -> None:
        for name in "abc":
            (folder / name).write_text(name)
        self.stamps = Files.under(str(folder)).stamps
        self.paths = list(self.stamps)
        self.tasks = {**{f"task-{path[-1]}": path for path in self.paths}, "task-bad": "bad"}
        self.report: list[Line | None] = [self.line(path) for path in self.paths]
        self.fatal = [fatal_task("task-bad")]

    @staticmethod
    def line(of: str, **changes: str) -> Line:
        found = Measure.of(to_path(of))
        line = Line(f"task-{of[-1]}", of, "text", found.words, found.lines, found.checksum)
        return msgspec.structs.replace(line, **changes)

    def verdict(self) -> Verdict:
        return judge(self.stamps, "bad", self.tasks, self.report, self.fatal)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    (tmp_path / "case").mkdir()
    return Case(tmp_path / "case")


def test_a_complete_report_is_good(case: Case) -> None:
    assert case.verdict() == Verdict(fatal=["bad"], expected=True)
    assert case.verdict().good


def test_a_missing_line_is_a_loss(case: Case) -> None:
    del case.report[1]
    assert case.verdict().lost == [case.paths[1]]
    assert not case.verdict().good


def test_a_doubled_line_is_seen(case: Case) -> None:
    case.report.append(case.report[1])
    assert case.verdict().doubled == [case.paths[1]]
    assert not case.verdict().good


def test_a_wrong_checksum_is_seen(case: Case) -> None:
    case.report[1] = case.line(case.paths[1], checksum="0" * 64)
    assert case.verdict().wrong == [case.paths[1]]
    assert not case.verdict().good


def test_a_file_that_somebody_changed_is_not_called_wrong(case: Case) -> None:
    to_path(case.paths[1]).write_text("something else")
    assert case.verdict().changed == [case.paths[1]]
    assert case.verdict().good


@pytest.mark.parametrize(
    "strange",
    [
        lambda case: None,
        lambda case: case.line(case.paths[0], path="/elsewhere"),
        lambda case: case.line(case.paths[0], task="task-b"),
        lambda case: case.line(case.paths[0], path="bad", task="task-bad"),
    ],
    ids=["unreadable", "other path", "other task", "the bad one"],
)
def test_a_line_of_no_file_is_seen(case: Case, strange: Callable[[Case], Line | None]) -> None:
    case.report.append(strange(case))
    assert case.verdict().strange == 1
    assert not case.verdict().good


def test_in_the_report_and_in_the_fatal_queue_is_one_too_many(case: Case) -> None:
    case.fatal.append(fatal_task("task-b"))
    assert case.verdict().doubled == [case.paths[1]]
    assert not case.verdict().expected


def test_a_bad_file_that_went_well_is_no_success(case: Case) -> None:
    case.fatal.clear()
    assert not case.verdict().good


def test_a_real_file_that_fails_is_not_lost_and_no_success(case: Case) -> None:
    del case.report[1]
    case.fatal.append(fatal_task("task-b"))
    verdict = case.verdict()
    assert (verdict.lost, verdict.fatal) == ([], sorted([case.paths[1], "bad"]))
    assert not verdict.good


def test_the_bad_one_twice_in_the_fatal_queue_is_no_success(case: Case) -> None:
    case.fatal.append(fatal_task("task-bad"))
    assert not case.verdict().good


def test_only_a_person_may_start_a_plain_step_again() -> None:
    starts = {("a", "read"): 2, ("b", "measure"): 3, ("c", "read"): 1, ("d", "store"): 9}
    assert started_twice(starts, {}) == 3
    assert started_twice(starts, {("a", "read"): 1, ("b", "measure"): 1}) == 1
    assert not Verdict(expected=True, twice=1).good


# -- its parts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRANGE)
def test_paths_come_back_from_text(name: str) -> None:
    text = to_text(f"/data/{name}")
    text.encode()  # no surrogates are left
    assert os.fsencode(to_path(text)) == b"/data/" + os.fsencode(name)
    assert shown(text).isprintable()


def test_links_are_not_followed(tree: Path) -> None:
    names = {to_path(text).name for text in Files.under(str(tree)).stamps}
    assert names == {*STRANGE, "empty", "binary"}


def test_words_across_chunks(tmp_path: Path) -> None:
    dice = random.Random(1)
    content = bytes(dice.choices(b"ab \n\t", [40, 40, 5, 1, 1], k=3 * 1024 * 1024 + 5))
    for start in (0, 1, 2, 3):
        file = tmp_path / "large"
        file.write_bytes(content[start:])
        found = Measure.of(file)
        assert (found.words, found.lines) == (len(content[start:].split()), content[start:].count(b"\n"))


def test_storing_a_line_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "report"
    one, two = Report(path), Report(path)  # as two processes have it
    first, second = (Line(task, "/p", "text", 1, 2, "c") for task in "ab")
    try:
        assert one.store(first)
        assert not one.store(first)
        assert not two.store(first)
        assert two.store(second)
        assert one.tasks() == {"a", "b"}
        with path.open("ab") as file:
            file.write(b'{"task":"c","pa')  # killed in the middle of its write
        assert one.tasks() == {"a", "b"}
        third = Line("c", "/q", "text", 1, 2, "c")
        assert one.store(third)
        assert not two.store(third)
    finally:
        one.close()
        two.close()
    assert read(path) == [first, second, third]


def test_hiccups_are_repeatable_and_fewer_than_the_retries() -> None:
    found = [hiccups(seed, "/p") for seed in range(500)]
    assert found == [hiccups(seed, "/p") for seed in range(500)]
    assert max(map(len, found)) <= 2
    assert {each for several in found for each in several} == {"before", "after"}


def test_the_journal_counts_what_happened(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    tally = Tally(tmp_path / "journal")
    try:
        with journal.step("a", "read"):
            tally.update()
            assert tally.running[os.getpid()] == {"a": "read"}
        journal.listen(StepRetried("a", "q", "j", "store", 1, 0.1, "e"))
        journal.listen(TaskCrashed("b", "q", "j", 1))
        journal.listen(TaskBuried("b", "q", "j", "read", "in_doubt", "e", 0.1))
        assert tally.update()
        assert not tally.update()
        assert (tally.starts["a", "read"], tally.retries, tally.crashes) == (1, 1, 1)
        assert (tally.settled, tally.buried, tally.crashed) == ({"b"}, {"b"}, {"b"})
        assert not tally.running[os.getpid()]
        tally.reopen("b")
        assert not tally.settled
    finally:
        tally.close()
        journal.close()


def test_a_worker_that_ends_by_itself_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    plan = Plan(run="x", folder=to_text(tmp_path), report=to_text(tmp_path / "report"), seed=1)
    with Crew(plan, "nonsense://") as crew:
        crew.start()
        end = time.monotonic() + 30
        with pytest.raises(GotasksError, match=r"ended by itself .*nonsense"):
            while time.monotonic() < end:
                crew.check()
                time.sleep(0.01)


def test_the_workers_app_needs_the_demos_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    from gotasks.demo import app

    monkeypatch.delenv("GOTASKS_DEMO_PLAN", raising=False)
    with pytest.raises(ConfigurationError, match="gotasks demo"):
        app.app  # noqa: B018 - looking is what makes it
