"""`gotasks worker --processes N` on Redis: children that die, and a supervisor that does."""

from __future__ import annotations

import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_process import Background, Cli, lives, until
from tests.redis_server import free_port

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def cli(tmp_path: Path, redis_url: str) -> Iterator[Cli]:
    cli = Cli(tmp_path, GOTASKS_BROKER_URL=redis_url, GOTASKS_APP="shop")
    yield cli
    cli.close()


def supervised(cli: Cli, *words: str, **env: str) -> Background:
    worker = cli.start("worker", "--processes", "2", *words, **env)
    worker.until_logged("worker started", times=2)
    return worker


def until_gone(pids: list[int]) -> None:
    until(lambda: not any(map(lives, pids)), "a worker process is left over")


def test_a_killed_process_is_replaced(cli: Cli) -> None:
    worker = supervised(cli)
    first, second = worker.children
    os.kill(first, signal.SIGKILL)
    os.kill(second, signal.SIGKILL)
    worker.until_logged("worker started", times=4)
    assert worker.log.count("ended with SIGKILL") == 2
    assert len(set(worker.children)) == 4
    cli.run("enqueue", "checkout", "-q", "orders", "--wait", "20")
    worker.signal(signal.SIGTERM)
    worker.ends(0)
    until_gone(worker.children)
    assert worker.log.count("worker stopped") == 2
    assert worker.log.count("  checkout: charge → receipt*\n") == 1  # said once, not by each


def test_processes_by_the_environment(cli: Cli) -> None:
    worker = cli.start("worker", GOTASKS_PROCESSES="2")
    worker.until_logged("worker started", times=2)
    assert len(worker.children) == 2


def test_the_death_of_the_supervisor_is_a_clean_stop_for_its_children(cli: Cli) -> None:
    worker = supervised(cli)
    task_id, gate = cli.in_handler("a")
    children = worker.children
    worker.process.kill()
    worker.process.wait()
    gate.touch()
    until_gone(children)
    assert worker.log.count("worker stopped") == 2
    # Either the stop came first, and the chain is given back after its step, or the chain was done before.
    assert cli.json("status", task_id)["state"] in ("ready", "done")
    assert cli.json("fatal", "list") == []


def test_signals_to_the_whole_group_are_one_clean_stop(cli: Cli) -> None:
    # systemd sends SIGTERM to every process of a service, and so does the supervisor ask each of its children.
    worker = supervised(cli)
    task_id, gate = cli.in_handler("a")
    for pid in worker.children:
        os.kill(pid, signal.SIGTERM)
    worker.signal(signal.SIGTERM)
    worker.until_logged("SIGTERM: stopping", times=3)
    gate.touch()
    worker.ends(0)
    fields = cli.json("status", task_id)
    assert (fields["state"], fields["step"]) == ("ready", "receipt")


def test_the_end_of_the_terminal_is_a_clean_stop(cli: Cli) -> None:
    worker = supervised(cli)
    os.killpg(worker.process.pid, signal.SIGHUP)
    worker.ends(-signal.SIGHUP)
    until_gone(worker.children)
    assert worker.log.count("worker stopped") == 2


def test_a_second_signal_kills_the_children(cli: Cli) -> None:
    worker = supervised(cli)
    cli.in_handler("a")
    worker.signal(signal.SIGTERM)
    worker.until_logged("SIGTERM: stopping")
    worker.signal(signal.SIGINT)
    worker.ends(128 + signal.SIGINT)
    until_gone(worker.children)


def test_metrics_of_several_processes_are_one_sum(cli: Cli) -> None:
    port = free_port()
    worker = supervised(cli, "--metrics-port", str(port))
    lines = "".join(f'{{"n": {number}}}\n' for number in range(20))
    cli.run("enqueue", "checkout", "-q", "orders", "--many", "-", stdin=lines)

    def count() -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = re.findall(
            r'^task_execution_stats_count\{.*queue_name="orders".*\} (\S+)$', text, re.MULTILINE
        )
        return sum(map(float, found))

    until(lambda: count() == 20, lambda: f"{count()} of 20 tasks are counted")
    worker.signal(signal.SIGTERM)
    worker.ends(0)


def test_options_reach_the_processes(cli: Cli) -> None:
    worker = supervised(cli, "--lease", "1", "-q", "orders:1", "--log-level", "debug")
    task_id, _ = cli.in_handler("a")
    for pid in worker.children:
        os.kill(pid, signal.SIGKILL)
    cli.until_fatal(task_id)
    assert "DEBUG" in worker.log
    # Each process runs one at once, so a third waits until a gate is opened.
    _, gate = cli.in_handler("b")
    cli.in_handler("c")
    third = cli.enqueue()
    assert {each["queue"]: each["leased"] for each in cli.json("queues")}["orders"] == 2
    assert cli.state(third) == "ready"
    gate.touch()
    until(lambda: cli.state(third) == "done", "not done")
