"""`gotasks bench` as a process: what it prints, and that nothing of it is left on the broker, however it ends."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner

from gotasks.cli import main
from gotasks.discovery import open_broker
from gotasks_rabbitmq.names import USED
from tests.cli_process import Cli
from tests.resp import Resp

pytestmark = pytest.mark.timeout(180)

#: As short as it goes.
SHORT = ("--seconds", "0.2")


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    # What is set for a user's own workers isn't for this one.
    cli = Cli(tmp_path, GOTASKS_MAX_LIMIT="none", GOTASKS_LEASE="none", GOTASKS_GRACE="none")
    yield cli
    cli.close()


def left(url: str) -> Sequence[object]:
    """All that is in the place that this URL names."""
    if url.startswith("redis"):
        (namespace,) = parse_qs(urlsplit(url).query)["namespace"]
        with Resp(url) as server:
            keys = server.call("KEYS", f"{{{namespace}}}:*")  # the namespace is this test's own, and small
        assert isinstance(keys, list)
        return keys
    if url.startswith("sqlite"):
        file = sqlite3.connect(urlsplit(url).path[1:])
        tasks = file.execute("SELECT * FROM gotasks_tasks").fetchall()
        file.close()
        return tasks
    return []  # in memory


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a document, with where it is."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from numbers(each, f"{path}.{key}")
    elif isinstance(value, (int, float)):
        yield path, value


@pytest.mark.parametrize("place", ["memory", "sqlite", "redis"])
def test_figures(place: str, cli: Cli, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{place}_url")
    report = cli.json("bench", url, *SHORT, "--slots", "4", "--payload", "50")
    keys = "schema gotasks python url seconds slots payload figures advice warnings"
    assert " ".join(report) == keys
    assert (report["schema"], report["seconds"], report["slots"], report["payload"]) == (1, 0.2, 4, 50)
    figures = report["figures"]
    assert " ".join(figures) == "ping enqueue drain chain_steps_per_second latency time"
    may_be_zero = ("waiting_us", "broker_us", ".stats.items")
    for path, value in numbers(figures):
        assert value > 0 or (value == 0 and path.endswith(may_be_zero)), (path, value)
    drain, time = figures["drain"], figures["time"]
    assert {"acquire", "ack"} <= drain["methods"].keys()
    assert 1 <= drain["tasks_per_call"] <= 4  # there are no more slots
    assert drain["in_calls"] <= 1
    assert time["task_us"] * drain["tasks_per_second"] == pytest.approx(1e6)
    assert figures["ping"]["p50_ms"] <= figures["ping"]["p99_ms"]
    assert left(url) == []


def test_what_people_see(cli: Cli, sqlite_url: str) -> None:
    done = cli.run("bench", *SHORT, GOTASKS_BROKER_URL=sqlite_url)
    lines = done.stdout.splitlines()
    assert lines[:7] == [
        f"{name} …" for name in ("warm-up", "round trip", "enqueue", "bulk", "drain", "chains", "latency")
    ]
    assert f"{sqlite_url}: 10 slots, args of 100 bytes" in lines
    for start in ("round trip ", "drain ", "chains ", "latency ", "broker ", "process ", "waiting "):
        assert any(line.startswith(start) for line in lines), done.stdout
    assert any(line.startswith("- ") for line in lines[lines.index("what would help:") :])
    assert done.stderr == ""
    assert left(sqlite_url) == []


def test_a_bar_where_somebody_looks(cli: Cli) -> None:
    document = cli.directory / "report.json"
    ours, theirs = os.openpty()
    with (
        document.open("wb") as stdout,
        subprocess.Popen(
            [sys.executable, "-m", "gotasks", "bench", "memory://", *SHORT, "--json"],
            cwd=cli.directory,
            env={**cli.env, "TERM": "xterm"},
            stdout=stdout,
            stderr=theirs,
        ) as process,
    ):
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # how a terminal says that nobody writes there any more
            while some := os.read(ours, 4096):
                shown += some
        os.close(ours)
    assert process.returncode == 0, shown
    assert json.loads(document.read_bytes())["url"] == "memory://"
    for part in ("latency", "100%"):
        assert part in shown.decode()
    assert "…" not in shown.decode()


def test_ctrl_c_leaves_nothing(cli: Cli, shared_url: str) -> None:
    bench = cli.start("bench", shared_url, "--seconds", "2")
    bench.until_logged("drain …")  # so there's a backlog, of which a worker holds some
    assert left(shared_url) != []
    bench.signal(signal.SIGINT)
    bench.ends(130)
    assert bench.log.endswith("stopped: nothing of this run waits on the broker\n")
    assert left(shared_url) == []


def test_a_queue_that_stays_is_named(rabbitmq_url: str) -> None:
    done = CliRunner().invoke(
        main, ["bench", rabbitmq_url, *SHORT]
    )  # here, so that the fixture knows the queue
    assert done.exit_code == 0, done.output
    said = "no task is left, but an empty queue; delete it on RabbitMQ, where its name ends with :"
    name = done.stderr.strip().removeprefix(said)
    (namespace,) = parse_qs(urlsplit(rabbitmq_url).query)["namespace"]
    assert USED[namespace] == {name}
    broker = open_broker(rabbitmq_url)
    assert broker.stats(name).ready == 0
    broker.close()


def test_what_can_t_be_measured(cli: Cli) -> None:
    for words, code, said in [
        (["redis://127.0.0.1:1/0"], 3, "127.0.0.1:1"),
        ([], 2, "which broker?"),
        (["redsi://127.0.0.1"], 2, "Did you mean redis://?"),
        (["memory://", "--seconds", "0"], 2, "above 0"),
        (["memory://", "--slots", "0"], 2, "slots"),
        (["memory://", "--payload", "500001"], 2, "payload"),
        (["memory://", "--payload", "500000", "--slots", "1000"], 2, "take fewer slots, or smaller args"),
    ]:
        done = cli.run("bench", *words, "--json", code=code)
        assert done.stdout == ""
        *progress, error = done.stderr.splitlines()
        assert error.startswith("Error: ")
        assert said in error
        assert progress in ([], ["warm-up …"])
