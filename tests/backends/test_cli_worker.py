"""`gotasks worker` on Redis: one process from its start to its end."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_process import Cli
from tests.redis_server import free_port

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def cli(tmp_path: Path, redis_url: str) -> Iterator[Cli]:
    cli = Cli(tmp_path, GOTASKS_BROKER_URL=redis_url, GOTASKS_APP="shop")
    yield cli
    cli.close()


def test_a_task_from_enqueue_to_its_end(cli: Cli) -> None:
    worker = cli.worker()
    done = cli.run("enqueue", "checkout", "order=42", "-q", "orders", "--wait", "20")
    task_id, result = done.stdout.splitlines()
    assert json.loads(result) == {"order": 42, "paid": True, "sent": True}
    fields = cli.json("status", task_id)
    assert (fields["id"], fields["state"], fields["queue"], fields["job"]) == (
        task_id,
        "done",
        "orders",
        "checkout",
    )
    assert fields["steps"] == ["charge", "receipt"]
    assert fields["step"] is None
    assert fields["original_args"] == {"order": 42}
    assert fields["args"] == {"order": 42, "paid": True, "sent": True}
    assert fields["result_log"] is None
    shown = cli.run("status", task_id).stdout
    assert "charge → receipt" in shown
    whole = cli.json("enqueue", "checkout", "--args", '{"n": 1}', "-q", "mail", "--wait", "20")
    assert (whole["state"], whole["args"]) == ("done", {"n": 1, "paid": True, "sent": True})
    worker.signal(signal.SIGTERM)
    worker.ends(0)
    assert "  checkout: charge → receipt*\n" in worker.log
    assert "queues: orders (3 at once), mail (2 at once)\n" in worker.log
    assert "worker stopped" in worker.log


def test_sigterm_gives_a_chain_back_after_the_running_step(cli: Cli) -> None:
    worker = cli.worker()
    task_id, gate = cli.in_handler("a")
    worker.signal(signal.SIGTERM)
    worker.until_logged("SIGTERM: stopping")
    gate.touch()
    worker.ends(0)
    fields = cli.json("status", task_id)
    assert (fields["state"], fields["step"], fields["args"]["paid"]) == ("ready", "receipt", True)


def test_sigint_stops_cleanly(cli: Cli) -> None:
    worker = cli.worker()
    worker.signal(signal.SIGINT)
    worker.ends(0)


def test_a_second_signal_exits_at_once(cli: Cli) -> None:
    worker = cli.worker()
    cli.in_handler("a")
    worker.signal(signal.SIGTERM)
    worker.until_logged("SIGTERM: stopping")
    worker.signal(signal.SIGTERM)
    worker.ends(128 + signal.SIGTERM)


def test_an_undeclared_queue_is_served_with_a_warning(cli: Cli) -> None:
    worker = cli.worker("-q", "ordrs")
    assert "queues: ordrs (10 at once)\n" in worker.log
    assert "no queue 'ordrs'" in worker.log
    assert "did you mean 'orders'?" in worker.log
    done = cli.run("enqueue", "checkout", "-q", "ordrs", "--wait", "20")
    assert "did you mean 'orders'?" in done.stderr


def test_modules_of_include_are_served(cli: Cli) -> None:
    cli.module("more", "from shop import app\n\n@app.job('extra')\ndef extra(args):\n    pass\n")
    worker = cli.worker("--include", "more")
    assert "  extra: extra\n" in worker.log


def test_options_flag_then_environment_then_app(cli: Cli) -> None:
    from_env = cli.worker(GOTASKS_QUEUES="orders:7,mail")
    assert "queues: orders (7 at once), mail (2 at once)\n" in from_env.log
    both = cli.worker("-q", "orders:5", GOTASKS_QUEUES="mail", GOTASKS_MAX_LIMIT="9")
    assert "queues: orders (5 at once)\n" in both.log
    limit = cli.worker(GOTASKS_MAX_LIMIT="9")
    assert "queues: orders (9 at once), mail (9 at once)\n" in limit.log


def test_broker_flag_then_environment_then_app(cli: Cli, redis_url: str) -> None:
    away = "redis://127.0.0.1:1/0"  # what the app says too
    cli.run("queues", "--broker", redis_url, GOTASKS_BROKER_URL=away)
    assert "127.0.0.1:1" in cli.run("queues", "--broker", away, code=3).stderr
    del cli.env["GOTASKS_BROKER_URL"]
    assert "127.0.0.1:1" in cli.run("queues", code=3).stderr


def test_a_lease_of_the_command_line_reaches_the_broker(cli: Cli) -> None:
    killed = cli.worker("--lease", "1")
    task_id, _ = cli.in_handler("a")
    killed.signal(signal.SIGKILL)
    cli.worker("--lease", "1")  # with the 30 s of the app nothing would happen in time
    cli.until_fatal(task_id)


def test_log_json(cli: Cli) -> None:
    worker = cli.worker("--log-json")
    task_id = cli.enqueue("fail=true")
    worker.until_logged(task_id)
    worker.signal(signal.SIGTERM)
    worker.ends(0)
    lines = [json.loads(line) for line in worker.log.splitlines()]
    (buried,) = [line for line in lines if line["level"] == "ERROR"]
    assert (buried["task_id"], buried["job"], buried["queue"]) == (task_id, "checkout", "orders")
    assert buried["step"] == "charge"
    assert "card declined" in buried["message"]
    assert "  checkout: charge → receipt*" in [line["message"] for line in lines]


def test_what_the_app_has_configured_itself_is_left_alone(cli: Cli) -> None:
    own = "import logging, sys\nlogging.basicConfig(level='INFO', format='MINE %(message)s', stream=sys.stdout)\n"
    cli.module("own", own + "from shop import app\n")
    worker = cli.worker("own:app")
    assert "MINE worker started\n" in worker.log
    assert worker.log.count("worker started") == 1


def test_log_level(cli: Cli) -> None:
    worker = cli.start("worker", GOTASKS_LOG_LEVEL="error")
    task_id = cli.enqueue("fail=true")
    worker.until_logged(task_id)
    assert "INFO" not in worker.log
    assert "WARNING" not in worker.log


def test_metrics_of_one_process(cli: Cli) -> None:
    port = free_port()
    worker = cli.worker(GOTASKS_METRICS_PORT=f"127.0.0.1:{port}")
    cli.run("enqueue", "checkout", "-q", "orders", "--wait", "20")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert b'job_name="checkout"' in answer.read()
    assert "can't listen" in cli.run("worker", "--metrics-port", str(port), code=2).stderr
    worker.signal(signal.SIGTERM)
    worker.ends(0)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)
