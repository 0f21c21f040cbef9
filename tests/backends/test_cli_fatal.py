"""`gotasks fatal` on Redis and on SQLite: list, show, retry, drop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_process import Cli, until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def cli(tmp_path: Path, shared_url: str) -> Iterator[Cli]:
    cli = Cli(tmp_path, GOTASKS_BROKER_URL=shared_url, GOTASKS_APP="shop")
    yield cli
    cli.close()


def test_mend_and_retry(cli: Cli) -> None:
    cli.worker()
    task_id = cli.enqueue("fail=true", "order=7")
    cli.until_fatal(task_id)
    (listed,) = cli.json("fatal", "list")
    assert (listed["job"], listed["step"], listed["outcome"]) == ("checkout", "charge", "failed")
    assert task_id in cli.run("fatal", "list").stdout
    fields = cli.json("fatal", "show", task_id)
    assert fields["args"] == {"fail": True, "order": 7}
    assert "in charge" in fields["traceback"]
    shown = cli.run("fatal", "show", task_id).stdout
    assert "[charge] → receipt" in shown
    assert "card declined" in shown
    assert cli.json("fatal", "retry", task_id, "--set", "fail=false") == {
        "retried": [{"id": task_id, "queue": "orders"}],
        "failed": [],
    }
    until(lambda: cli.state(task_id) == "done", "not done")
    assert cli.json("status", task_id)["args"] == {"fail": False, "order": 7, "paid": True, "sent": True}
    assert "no task" in cli.run("fatal", "show", task_id, code=1).stderr
    assert "no task" in cli.run("fatal", "retry", task_id, code=1).stderr


def test_a_task_in_doubt_needs_force_or_a_later_step(cli: Cli) -> None:
    killed = cli.worker("--lease", "1")
    again, gate_again = cli.in_handler("again")
    skipped, _ = cli.in_handler("skipped")
    killed.signal(signal.SIGKILL)
    cli.worker("--lease", "1")
    cli.until_fatal(again, skipped)
    assert {each["outcome"] for each in cli.json("fatal", "list")} == {"in_doubt"}
    assert "--force" in cli.run("fatal", "show", again).stdout
    refused = cli.run("fatal", "retry", again, code=1)
    assert "in doubt" in refused.stderr
    assert "--force" in refused.stderr
    gate_again.touch()
    cli.run("fatal", "retry", again, "--force")
    cli.run("fatal", "retry", skipped, "--from-step", "receipt")
    until(lambda: cli.state(again) == cli.state(skipped) == "done", "not done")
    assert cli.json("status", again)["args"]["paid"] is True
    assert "paid" not in cli.json("status", skipped)["args"]


def test_a_step_that_is_not_there(cli: Cli) -> None:
    cli.worker()
    task_id = cli.enqueue("fail=true")
    cli.until_fatal(task_id)
    done = cli.run("fatal", "retry", task_id, "--from-step", "recipt", code=2)
    assert "charge, receipt" in done.stderr
    assert cli.is_fatal(task_id)


def test_all_with_filters(cli: Cli) -> None:
    worker = cli.worker()
    first = [cli.enqueue("fail=true") for _ in range(3)]
    second = [cli.enqueue("lost_mail=true") for _ in range(2)]
    cli.until_fatal(*first, *second)
    worker.signal(signal.SIGTERM)
    worker.ends(0)
    assert [each["id"] for each in cli.json("fatal", "list", "--step", "receipt")] == second
    assert cli.json("fatal", "list", "--outcome", "in_doubt") == []
    page = cli.json("fatal", "list", "--limit", "2")
    assert [each["id"] for each in page] == first[:2]
    after = cli.json("fatal", "list", "--after", first[1])
    assert [each["id"] for each in after] == [first[2], *second]
    report = cli.json("fatal", "retry", "--all", "--step", "receipt", "--set", "lost_mail=false")
    assert [each["id"] for each in report["retried"]] == second
    assert "--yes" in cli.run("fatal", "drop", "--all", code=2).stderr
    assert len(cli.json("fatal", "list")) == 3
    dropped = cli.json("fatal", "drop", "--all", "--job", "checkout", "--yes")
    assert [each["id"] for each in dropped["dropped"]] == first
    assert cli.json("fatal", "list") == []
    assert cli.run("fatal", "drop", "--all", "--yes").stderr == "nothing there\n"


def test_one_that_refuses_does_not_stop_the_others(cli: Cli) -> None:
    cli.worker()
    task_id = cli.enqueue("fail=true")
    cli.until_fatal(task_id)
    report = cli.json("fatal", "drop", "not-there", task_id, "--yes", code=1)
    assert [each["id"] for each in report["dropped"]] == [task_id]
    assert [each["id"] for each in report["failed"]] == ["not-there"]


def test_drop_and_retry_want_ids_or_all(cli: Cli) -> None:
    assert "--all" in cli.run("fatal", "drop", "--yes", code=2).stderr
    assert "--all" in cli.run("fatal", "retry", "some-id", "--all", code=2).stderr
    assert "--all" in cli.run("fatal", "retry", "some-id", "--job", "checkout", code=2).stderr
