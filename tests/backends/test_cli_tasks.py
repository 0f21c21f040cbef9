"""`gotasks enqueue`, `status`, `queues` and `purge` on Redis and on SQLite."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_process import Cli

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def cli(tmp_path: Path, shared_url: str) -> Iterator[Cli]:
    cli = Cli(tmp_path, GOTASKS_BROKER_URL=shared_url, GOTASKS_APP="shop")
    yield cli
    cli.close()


def test_exit_codes_of_waiting(cli: Cli) -> None:
    timed_out = cli.json("enqueue", "checkout", "-q", "orders", "--wait", "0", code=4)
    assert timed_out["state"] == "ready"
    cli.worker()
    failed = cli.run("enqueue", "checkout", "fail=true", "-q", "orders", "--wait", "20", code=1)
    assert "failed at step 'charge': ValueError: card declined" in failed.stderr
    task_id = failed.stdout.strip()
    fields = cli.json("status", task_id, code=1)
    assert (fields["state"], fields["step"]) == ("fatal", "charge")
    assert fields["result_log"]["outcome"] == "failed"
    failed_json = cli.json("enqueue", "checkout", "fail=true", "-q", "orders", "--wait", "20", code=1)
    assert failed_json["state"] == "fatal"
    assert "card declined" in failed_json["error"]


def test_status_of_a_task_that_nobody_knows(cli: Cli) -> None:
    done = cli.run("status", "never-enqueued", "--json", code=1)
    assert done.stdout == ""
    assert "no record of task never-enqueued" in done.stderr


def test_options_of_enqueue(cli: Cli) -> None:
    cli.run("enqueue", "checkout", "-q", "orders", "--id", "mine", "--delay", "1000")
    assert cli.run("enqueue", "checkout", "-q", "orders", "--id", "mine").stdout == "mine\n"  # stored once
    assert cli.json("status", "mine")["state"] == "scheduled"
    cli.run("enqueue", "checkout", "-q", "orders", "--id", "high", "--priority", "9", "--unique", "key")
    assert (
        cli.run("enqueue", "checkout", "-q", "orders", "--unique", "key").stdout == "high\n"
    )  # it has the key
    lesser = "memory://?without=PRIORITY"
    refused = cli.run("enqueue", "checkout", "-q", "orders", "--priority", "3", "--broker", lesser, code=2)
    assert "PRIORITY" in refused.stderr
    many = cli.directory / "large.jsonl"
    many.write_text(json.dumps({"text": "x" * 2_000_000}))
    assert "a task of 4" in cli.run("enqueue", "checkout", "-q", "orders", "--many", str(many), code=2).stderr


def test_many(cli: Cli) -> None:
    file = cli.directory / "orders.jsonl"
    file.write_text("".join(f'{{"n": {number}}}\n\n' for number in range(2500)))
    ids = cli.run("enqueue", "checkout", "-q", "orders", "--many", str(file)).stdout.split()
    assert len(set(ids)) == 2500
    assert cli.json("status", ids[1234])["args"] == {"n": 1234}
    report = cli.json("enqueue", "checkout", "-q", "mail", "--many", str(file))
    assert (report["count"], len(report["ids"])) == (2500, 2500)
    rows = {each["queue"]: each for each in cli.json("queues")}
    assert (rows["orders"]["ready"], rows["mail"]["ready"]) == (2500, 2500)


def test_many_says_how_far_it_came(cli: Cli) -> None:
    lines = "".join(f'{{"n": {number}}}\n' for number in range(1200)) + "[1]\n"
    done = cli.run("enqueue", "checkout", "-q", "orders", "--many", "-", code=2, stdin=lines)
    assert "line 1201 of <stdin>" in done.stderr
    assert "1000 tasks were stored before that" in done.stderr
    assert len(done.stdout.split()) == 1000
    assert {each["queue"]: each["ready"] for each in cli.json("queues")}["orders"] == 1000


def test_queues_and_purge(cli: Cli, shared_url: str) -> None:
    cli.enqueue()
    cli.enqueue("--delay", "1000")
    cli.run("enqueue", "checkout", "-q", "mail")
    counts = [
        (each["queue"], each["ready"], each["scheduled"], each["leased"]) for each in cli.json("queues")
    ]
    assert counts == [("orders", 1, 1, 0), ("mail", 1, 0, 0), ("fatal", 0, 0, 0)]
    assert [each["queue"] for each in cli.json("queues", "mail")] == ["mail", "fatal"]
    del cli.env["GOTASKS_APP"]  # the broker alone knows no queues by itself
    assert [each["queue"] for each in cli.json("queues", "--broker", shared_url)] == ["fatal"]
    assert re.search(r"^orders +1 +1 +0", cli.run("queues", "orders").stdout, re.MULTILINE)
    assert "--yes" in cli.run("purge", "orders", code=2).stderr
    assert cli.json("purge", "orders", "--yes") == {"queue": "orders", "purged": 2}
    assert [each["ready"] for each in cli.json("queues", "orders", "mail")] == [0, 1, 0]
