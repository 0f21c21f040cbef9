"""Several worker processes on one port: sums never go back, gauges are of those that live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotasks import App, metrics
from gotasks.errors import ConfigurationError
from gotasks.events import Event, QueueMeasured, StepDone, StepRetried
from tests.unit.test_metrics import Samples, scrape, series, until, value

_CHILD = """
import os, sys, threading
from gotasks import App, metrics

app, entered = App("memory://"), threading.Event()

@app.job("add")
def add(args):
    pass

@app.job("hold")
def hold(args):
    entered.set()
    threading.Event().wait(60)

orders = app.queue("orders", max_limit=2, monitor_interval=0.05)
with metrics.publish(app, f"{sys.argv[1]}/{os.getpid()}.json", every=0.02), app.worker("orders", grace=0.1):
    for line in sys.stdin:
        if line == "hold\\n":
            orders.enqueue("hold", {})
            entered.wait(30)
        else:
            for task in orders.enqueue_many("add", [{}] * int(line)):
                task.wait(timeout=30)
        print("done", flush=True)
"""


class Child:
    """A process with a worker; it does what it's told and says when that is done."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0

    def kill(self) -> None:
        self.process.kill()
        assert self.process.wait(30) == -signal.SIGKILL


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[[], Child]]:
    children: list[Child] = []

    def start() -> Child:
        children.append(Child(tmp_path))
        return children[-1]

    yield start
    for each in children:
        with each.process:  # closes its pipes
            each.process.kill()


def executions(found: Samples) -> float | None:
    labels = {"queue_name": "orders", "job_name": "add", "status": "success"}
    count = value(found, "task_execution_stats_count", **labels)
    assert value(found, "task_execution_stats_bucket", **labels, le="+Inf") == count
    return count


def test_one_port_shows_the_sum_and_a_killed_process_still_counts(
    child: Callable[[], Child], tmp_path: Path
) -> None:
    one, other = child(), child()
    living = {one.pid, other.pid}
    with metrics.run_merged_server(tmp_path, ":0", lambda: living) as server:
        one.tell("3")
        other.tell("4")
        until(lambda: executions(scrape(server)) == 7)

        one.tell("hold")
        other.tell("hold")
        until(lambda: value(scrape(server), "gotasks_in_flight", queue_name="orders") == 2)

        one.kill()
        living.remove(one.pid)
        found = scrape(server)
        assert executions(found) == 7
        assert value(found, "gotasks_in_flight", queue_name="orders") == 1

        other.tell("5")
        until(lambda: executions(scrape(server)) == 12)

        third = child()
        living.add(third.pid)
        third.tell("1")
        until(lambda: executions(scrape(server)) == 13)


def test_closing_writes_what_came_last(child: Callable[[], Child], tmp_path: Path) -> None:
    only = child()
    with metrics.run_merged_server(tmp_path, ":0", set) as server:
        only.tell("6")
        only.end()

        assert executions(scrape(server)) == 6


# -- in one process, where it can be seen what each file does ----------------------------------------

RETRY = StepRetried("1", "orders", "checkout", "mail", 1, 0.0, "boom")


def app_with(*events: Event) -> App:
    app = App("memory://")
    app.register("checkout", print)
    app.metrics.totals()  # begins to count
    for event in events:
        app.events.emit(event)
    return app


def publish(directory: Path, pid: int, *events: Event) -> None:
    """What a process of this id would have left behind."""
    metrics.publish(app_with(*events), directory / f"{pid}.json").close()


def retries(found: Samples) -> float | None:
    return value(found, "gotasks_retries_total", queue_name="orders", job_name="checkout", step="mail")


def test_the_newest_size_of_a_living_process_counts(tmp_path: Path) -> None:
    for pid, ready in ((1, 11), (3, 33), (2, 22), (4, 44)):
        publish(tmp_path, pid, QueueMeasured("orders", ready, None, 0))
    living = {1, 2, 3}

    with metrics.run_merged_server(tmp_path, ":0", lambda: living) as server:
        found = scrape(server)
        assert series(found, "task_queue_stats") == {(("queue_name", "orders"),): 22}
        assert value(found, "gotasks_task_queue", queue_name="orders", state="leased") == 0
        assert value(found, "gotasks_task_queue", queue_name="orders", state="scheduled") is None
        living.remove(2)
        assert series(scrape(server), "task_queue_stats") == {(("queue_name", "orders"),): 33}
        living.clear()
        assert not series(scrape(server), "task_queue_stats")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"run":"a","sums":{"gotasks_ret',
        b"[]",
        b'{"run":"a","sums":{"gotasks_retries_total":[[["orders"],[1.0]]]},"sizes":{},"in_flight":{},"stalled":0}',
        b'{"run":"a","sums":{"gotasks_retries_total":[[["a","b","c"],[1.0,2.0]]]},"sizes":{},"in_flight":{},"stalled":0}',
        None,
    ],
)
def test_a_broken_or_vanished_file_changes_nothing(tmp_path: Path, content: bytes | None) -> None:
    for pid in (1, 2):
        publish(tmp_path, pid, RETRY, RETRY)
    (tmp_path / "notes.json").write_bytes(b"{")
    (tmp_path / "3.json").write_bytes(content or b"")

    with metrics.run_merged_server(tmp_path, ":0", set) as server:
        assert retries(scrape(server)) == 4
        if content is None:
            (tmp_path / "1.json").unlink()
        else:
            (tmp_path / "1.json").write_bytes(content)
        found = scrape(server)
        assert retries(found) == 4
        assert len(series(found, "gotasks_retries_total")) == 1


def test_what_cannot_be_read_does_not_hide_the_rest(tmp_path: Path) -> None:
    for pid in range(1, 40):
        if pid % 2:
            (tmp_path / f"{pid}.json").mkdir()
        else:
            publish(tmp_path, pid, RETRY)

    with metrics.run_merged_server(tmp_path, ":0", set) as server:
        assert retries(scrape(server)) == 19


def test_a_write_that_leaves_no_trace_in_the_directory(tmp_path: Path) -> None:
    """The times of files are coarse: two writes of one size may look like one."""
    publish(tmp_path, 1, RETRY)
    file = tmp_path / "1.json"
    written = file.stat().st_mtime_ns
    with metrics.run_merged_server(tmp_path, ":0", set) as server:
        assert retries(scrape(server)) == 1
        file.write_bytes(file.read_bytes().replace(b'"mail"],[1.0]', b'"mail"],[2.0]'))
        os.utime(file, ns=(written, written))
        assert retries(scrape(server)) == 2


def test_an_id_that_a_new_process_gets(tmp_path: Path) -> None:
    with metrics.run_merged_server(tmp_path, ":0", set) as server:
        publish(tmp_path, 1, RETRY, RETRY)
        assert retries(scrape(server)) == 2
        publish(tmp_path, 1, RETRY)
        assert retries(scrape(server)) == 3
        assert retries(scrape(server)) == 3


def test_a_family_of_a_later_version_is_left_out(tmp_path: Path) -> None:
    publish(tmp_path, 1, RETRY)
    file = tmp_path / "1.json"
    file.write_bytes(
        file.read_bytes().replace(b'"gotasks_crashes_total":[]', b'"gotasks_new_total":[[["a"],[1]]]')
    )

    with metrics.run_merged_server(tmp_path, ":0", set) as server:
        found = scrape(server)

    assert retries(found) == 1
    assert not series(found, "gotasks_new_total")


def test_publishing_goes_on_by_itself(tmp_path: Path) -> None:
    app = app_with()
    with (
        metrics.publish(app, tmp_path / "1.json", every=0.01) as publisher,
        metrics.run_merged_server(tmp_path, ":0", set) as server,
    ):
        app.events.emit(RETRY)
        until(lambda: retries(scrape(server)) == 1)
        app.events.emit(StepDone("1", "orders", "checkout", "mail", 0.5, True))
        until(lambda: series(scrape(server), "gotasks_step_duration_seconds_sum"))
    publisher.close()  # as often as one likes
    assert list(tmp_path.iterdir()) == [tmp_path / "1.json"]  # and nothing half-written beside it


class Asked:
    """Counts how often a worker is asked, so how often totals are made."""

    queues = ()
    count = 0

    def in_flight(self, queue: str) -> int:
        return 0

    @property
    def loop_stalled(self) -> bool:
        self.count += 1
        return False


def test_publishing_goes_on_when_the_directory_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "metrics"
    directory.mkdir()
    app, asked = app_with(RETRY), Asked()
    app.events.add_source(asked)
    with metrics.publish(app, directory / "1.json", every=0.005):
        directory.rename(tmp_path / "away")
        until(lambda: "can't be published" in caplog.text)
        before = asked.count
        until(lambda: asked.count > before + 3)
        (tmp_path / "away").rename(directory)
        (directory / "1.json").unlink()
        until((directory / "1.json").exists)
    assert caplog.text.count("can't be published") == 1


def test_what_cannot_be_published(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be published"):
        metrics.publish(app_with(), tmp_path / "missing" / "1.json")
    for every in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ConfigurationError, match="seconds above 0"):
            metrics.publish(app_with(), tmp_path / "1.json", every=every)
    with pytest.raises(ConfigurationError, match="no directory"):
        metrics.run_merged_server(tmp_path / "missing", ":0", set)
