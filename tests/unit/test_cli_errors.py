"""What the command line refuses, how it says so, and with which exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gotasks.cli.group import scrubbed
from tests.cli_process import Cli


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    cli = Cli(tmp_path)
    yield cli
    cli.close()


def sentence(cli: Cli, *words: str, code: int = 2, **env: str) -> str:
    """The one line that a failing command says; nothing is on stdout."""
    done = cli.run(*words, code=code, timeout=50, **env)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]


def test_help_teaches(cli: Cli) -> None:
    shown = cli.run("--help").stdout
    for command in ("worker", "enqueue", "status", "cancel", "queues", "fatal", "brokers", "purge", "demo"):
        assert f"\n  {command} " in shown
    assert "Exit codes:\n    0  done\n" in shown
    shown = cli.run("worker", "-h").stdout
    names = ("QUEUES", "LEASE", "GRACE", "APP", "BROKER_URL", "METRICS_PORT", "PROCESSES", "MONITOR_INTERVAL")
    for name in names:
        assert f"GOTASKS_{name}" in shown


def test_version(cli: Cli) -> None:
    from gotasks import __version__

    assert __version__ in cli.run("--version").stdout


def test_a_command_that_is_not_there(cli: Cli) -> None:
    assert "did you mean 'queues'?" in sentence(cli, "queue")


# -- the app --------------------------------------------------------------------------------------


def test_no_app_and_no_broker(cli: Cli) -> None:
    assert "GOTASKS_APP" in sentence(cli, "worker")
    assert "GOTASKS_APP" in sentence(cli, "enqueue", "checkout", "--broker", "redis://127.0.0.1:1")
    assert "GOTASKS_BROKER_URL" in sentence(cli, "queues")


def test_no_such_module_is_told_from_one_that_failed_inside(cli: Cli) -> None:
    assert "there is no module 'shopp'" in sentence(cli, "worker", "shopp:app")
    assert "there is no module 'shopp'" in sentence(cli, "worker", "shopp.tasks:app")
    cli.module("needs", "\nimport a_driver_that_is_not_here\n")
    said = sentence(cli, "worker", "needs:app")
    assert "module 'needs' failed when it was imported" in said
    assert "needs.py, line 2)" in said
    assert "No module named 'a_driver_that_is_not_here'" in said


@pytest.mark.parametrize(
    "source, expected",
    [
        ("x = (", "SyntaxError"),
        ("def f():\n    raise RuntimeError('boom')\nf()", "(PLACE, line 2): RuntimeError: boom"),
        ("import sys\nsys.exit(0)", "SystemExit"),
        (
            "from gotasks import App\napp = App()\napp.register('a', len)\napp.register('a', len)",
            "(PLACE, line 4): DuplicateJob",
        ),
    ],
)
def test_a_module_that_fails(cli: Cli, source: str, expected: str) -> None:
    cli.module("broken", source)
    said = sentence(cli, "worker", "broken:app")
    assert "module 'broken' failed" in said
    assert expected.replace("PLACE", str(cli.directory / "broken.py")) in said


def test_a_module_of_include_that_fails(cli: Cli) -> None:
    cli.module("broken", "raise RuntimeError('boom')")
    assert "module 'broken' failed" in sentence(cli, "worker", "shop", "--include", "broken")
    cli.module("includes", "from gotasks import App\napp = App(include=['broken'])")
    assert "RuntimeError: boom" in sentence(cli, "worker", "includes")


def test_which_app_of_the_module(cli: Cli) -> None:
    assert "did you mean shop:app?" in sentence(cli, "worker", "shop:ap")
    assert "is a function, not an App; it has shop:app" in sentence(cli, "worker", "shop:charge")
    assert "perhaps 'shop'" in sentence(cli, "worker", "shop.py")
    cli.module("two", "from gotasks import App\na = App()\nb = App()")
    assert "two:a, two:b" in sentence(cli, "worker", "two")
    cli.module("none", "")
    assert "has no App" in sentence(cli, "worker", "none")
    assert "two apps are named" in sentence(cli, "worker", "shop", "--app", "two:a")


def test_an_app_without_jobs_is_not_served(cli: Cli) -> None:
    cli.module("empty", "from gotasks import App\napp = App('memory://')\napp.queue('orders')")
    assert "no job is registered" in sentence(cli, "worker", "empty:app")


def test_an_app_without_queues_is_not_served(cli: Cli) -> None:
    cli.module("idle", "from gotasks import App\napp = App('memory://')\napp.register('a', len)")
    assert "no queue to serve" in sentence(cli, "worker", "idle:app")


# -- options --------------------------------------------------------------------------------------


def test_options_that_make_no_sense(cli: Cli) -> None:
    assert "as in orders:10" in sentence(cli, "worker", "shop", "-q", "orders:0")
    assert "as in orders:10" in sentence(cli, "worker", "shop", "-q", "orders:ten")
    assert "named twice" in sentence(cli, "worker", "shop", "-q", "orders:1", "-q", "orders:2")
    assert "fatal queue" in sentence(cli, "worker", "shop", "-q", "fatal")
    assert "GOTASKS_LEASE" in sentence(cli, "worker", "shop", GOTASKS_LEASE="soon")
    assert "GOTASKS_GRACE" in sentence(cli, "worker", "shop", GOTASKS_GRACE="nan")
    assert "above 0" in sentence(cli, "worker", "shop", "--lease", "0")


def test_args_that_are_not_json(cli: Cli) -> None:
    app = ("--app", "shop", "-q", "orders")
    assert """name='"Ann"'""" in sentence(cli, "enqueue", "checkout", "name=Ann", *app)
    assert "isn't key=json" in sentence(cli, "enqueue", "checkout", "order", *app)
    assert "isn't JSON" in sentence(cli, "enqueue", "checkout", "x=NaN", *app)
    assert "isn't JSON" in sentence(cli, "enqueue", "checkout", "--args", "{", *app)
    assert "no JSON object" in sentence(cli, "enqueue", "checkout", "--args", "[1]", *app)
    assert "not by both" in sentence(cli, "enqueue", "checkout", "a=1", "--args", "{}", *app)
    assert "--many" in sentence(cli, "enqueue", "checkout", "a=1", "--many", "-", *app)


def test_enqueue_wants_a_job_and_a_queue_that_are_there(cli: Cli) -> None:
    assert "did you mean 'checkout'?" in sentence(cli, "enqueue", "chekout", "--app", "shop", "-q", "mail")
    assert "orders" in sentence(cli, "enqueue", "checkout", "--app", "shop")  # it declares two: which?


# -- the broker -----------------------------------------------------------------------------------


def test_an_unknown_scheme(cli: Cli) -> None:
    assert "Did you mean redis://?" in sentence(cli, "queues", "--broker", "redsi://127.0.0.1")


def test_a_broker_that_lives_in_one_process_is_refused(cli: Cli) -> None:
    commands = [
        ("queues",),
        ("status", "x"),
        ("cancel", "x"),
        ("fatal", "list"),
        ("fatal", "retry", "x"),
        ("purge", "orders", "--yes"),
        ("enqueue", "checkout", "-q", "orders", "--app", "shop"),
        ("worker", "shop", "--processes", "2"),
    ]
    for words in commands:
        assert "several processes" in sentence(cli, *words, "--broker", "memory://")


def test_a_broker_that_is_away(cli: Cli) -> None:
    said = sentence(cli, "queues", "--broker", "redis://127.0.0.1:1/0", code=3)
    assert "127.0.0.1:1" in said


def test_brokers(cli: Cli) -> None:
    found = {each["scheme"]: each for each in cli.json("brokers")}
    assert {"memory", "redis", "rediss", "unix"} <= set(found)
    assert "ATOMIC_MOVE" in found["redis"]["capabilities"]
    assert "SHARED" not in found["memory"]["capabilities"]
    assert found["redis"]["distribution"] == "gotasks"
    assert found["redis"]["error"] is None
    assert "redis://" in cli.run("brokers").stdout


@pytest.mark.parametrize(
    "scheme, driver", [("redis", "redis"), ("mysql", "pymysql"), ("postgresql", "psycopg")]
)
def test_brokers_says_how_to_install_a_missing_driver(cli: Cli, scheme: str, driver: str) -> None:
    cli.module(driver, f"raise ModuleNotFoundError(\"No module named '{driver}'\", name='{driver}')")
    found = {each["scheme"]: each for each in cli.json("brokers", PYTHONPATH=str(cli.directory))}
    extra = {"postgresql": "postgres"}.get(scheme, scheme)
    assert f"pip install 'gotasks[{extra}]'" in found[scheme]["error"]
    assert found[scheme]["capabilities"] is None
    assert found["memory"]["error"] is None


# -- secrets --------------------------------------------------------------------------------------

SECRET = "s3cretive"


@pytest.mark.parametrize(
    "words, code",
    [
        (("queues", "--broker", f"redis://:{SECRET}@127.0.0.1:1/0"), 3),
        (("queues", "--broker", f"redsi://user:{SECRET}@127.0.0.1/0"), 2),
        (("queues", "--broker", f"redis://user:{SECRET}@[::1/0"), 2),
        (("queues", "--broker", f"redis://user:{SECRET}@127.0.0.1:port/0"), 2),
        (("queues", "--broker", f"redis://127.0.0.1/0?password={SECRET}"), 2),
        (("queues", "--broker", f"memory://user:{SECRET}@x"), 2),
        (("queues", f"redis://user:{SECRET}@127.0.0.1"), 2),  # in the wrong place
        (("status", "x", f"redis://user:{SECRET}@127.0.0.1"), 2),
        (("enqueue", "checkout", f"redis://user:{SECRET}@127.0.0.1", "--app", "shop"), 2),
        (("worker", f"redis://user:{SECRET}@127.0.0.1"), 2),
        (("worker", "shop", "-q", f"redis://user:{SECRET}@127.0.0.1"), 2),
    ],
)
@pytest.mark.parametrize("debug", ["0", "1"])
def test_no_error_shows_a_password(cli: Cli, words: tuple[str, ...], code: int, debug: str) -> None:
    done = cli.run(*words, code=code, GOTASKS_DEBUG=debug)
    assert "Error: " in done.stderr
    assert ("Traceback" in done.stderr) == (debug == "1")
    assert SECRET not in done.stdout + done.stderr


def test_a_worker_does_not_show_the_password(cli: Cli) -> None:
    broker = f"redis://user:{SECRET}@127.0.0.1:1/0"
    worker = cli.worker("shop", GOTASKS_BROKER_URL=broker)
    worker.until_logged("the broker doesn't answer")
    assert "broker: redis://user:***@127.0.0.1:1/0" in worker.log
    assert SECRET not in worker.log


def test_scrubbing() -> None:
    assert scrubbed("at redis://me:pw@h:1/0 and x://:p@w@h") == "at redis://me:***@h:1/0 and x://:***@h"
    assert scrubbed("redis://me@h, redis://h:6379") == "redis://me@h, redis://h:6379"
    assert scrubbed("x://h?db=1&sentinel_password=pw&a=b") == "x://h?db=1&sentinel_password=***&a=b"


def test_an_error_that_nobody_foresaw_is_a_sentence(cli: Cli) -> None:
    cli.module(
        "odd",
        "from gotasks import App\nclass Odd(App):\n    def stats(self, queue):\n        raise KeyError('odd')\n"
        "app = Odd('redis://127.0.0.1:1/0')",
    )
    assert "unexpected KeyError: 'odd'" in sentence(cli, "queues", "--app", "odd:app", code=70)


def test_json_is_ascii(cli: Cli) -> None:
    # Whatever the locale says, what programs read can be decoded.
    done = cli.run("brokers", "--json", LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout)
