"""`gotasks cancel`, on the memory broker behind a server, which processes share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gotasks.conformance.kit.served_adapter import ServedAdapter
from tests.cli_process import Cli

pytestmark = pytest.mark.timeout(120)

SERVED = """
import os

from gotasks.broker import BrokerURL
from gotasks.conformance.kit.served import ServedBroker
from shop import app

app.use_broker(ServedBroker.from_url(BrokerURL(os.environ["SERVED"])))
"""


def served(directory: Path, query: str = "") -> Iterator[Cli]:
    with ServedAdapter(query=query) as adapter:
        cli = Cli(directory, GOTASKS_APP="served", SERVED=adapter.broker_url)
        cli.module("served", SERVED)
        yield cli
        cli.close()


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    yield from served(tmp_path)


@pytest.fixture
def without_records(tmp_path: Path) -> Iterator[Cli]:
    yield from served(tmp_path, "without=RECORDS,BROWSE")


@pytest.fixture
def without_cancel(tmp_path: Path) -> Iterator[Cli]:
    yield from served(tmp_path, "without=CANCEL")


def test_tasks_that_wait(cli: Cli) -> None:
    one, two, three = (cli.enqueue() for _ in range(3))
    assert cli.run("cancel", one, two, one).stdout == f"{one} cancelled\n{two} cancelled\n"
    assert cli.json("cancel", three) == {"cancelled": [{"id": three}], "failed": []}
    assert cli.json("status", one, code=1)["state"] == "cancelled"
    assert cli.json("queues", "orders")[0]["ready"] == 0


def test_what_cant_be_cancelled_is_named_and_the_others_are(cli: Cli) -> None:
    done = cli.run("enqueue", "checkout", "-q", "orders", "--id", "paid").stdout.strip()
    worker = cli.worker()
    cli.run("enqueue", "checkout", "-q", "orders", "--id", "last", "--wait", "20")
    waits = cli.run("enqueue", "checkout", "-q", "orders", "--delay", "1000").stdout.strip()
    failed = cli.json("cancel", done, waits, "unknown", "no id!", code=1)
    assert failed["cancelled"] == [{"id": waits}]
    assert [(each["id"], each["error"]) for each in failed["failed"]] == [
        ("paid", "task paid is done"),
        ("unknown", "task unknown isn't known (any more)"),
        ("no id!", "task no id! isn't known (any more)"),
    ]
    again = cli.run("cancel", waits, code=1)
    assert (again.stdout, again.stderr) == ("", f"Error: task {waits} was cancelled before\n")
    assert worker.process.poll() is None


def test_a_task_that_runs(cli: Cli) -> None:
    worker = cli.worker("--lease", "1")
    task_id, gate = cli.in_handler("long")
    assert cli.run("cancel", task_id).stdout == f"{task_id} cancelled\n"
    worker.until_logged("the lease is lost (somebody else has the task, or it was cancelled)")
    gate.touch()
    assert cli.json("status", task_id, code=1)["state"] == "cancelled"


def test_a_broker_that_keeps_no_records(without_records: Cli) -> None:
    task_id = without_records.enqueue()
    assert without_records.run("cancel", task_id).stdout == f"{task_id} cancelled\n"
    assert "has ended, or isn't known" in without_records.run("cancel", task_id, code=1).stderr


def test_a_broker_that_cant(without_cancel: Cli) -> None:
    said = without_cancel.run("cancel", "x", code=2)
    assert "cancelling a task needs a broker with CANCEL" in said.stderr


def test_it_needs_an_id(cli: Cli) -> None:
    assert "Missing argument 'ID...'" in cli.run("cancel", code=2).stderr
