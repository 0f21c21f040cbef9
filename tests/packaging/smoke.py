"""What `make release-check` runs in an environment that has the wheel with one extra, and nothing else.

    python -I smoke.py VERSION EXTRA[,EXTRA...] [{"redis": "redis://127.0.0.1:6379/0?namespace=x"}]

The third names empty places on servers, by the extra whose driver reaches them. It ends with 0 if all holds; else it
says what doesn't. It stands alone: no test tool, nothing of the checkout.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import gotasks
from gotasks import App, GotasksError

#: A URL at which nobody listens → the extra that its driver comes with.
NOBODY_THERE = {
    "redis://:secret@127.0.0.1:1/0": "redis",
    "sqlite:////nowhere/tasks.db": "sql",
    "postgresql://me:secret@127.0.0.1:1/x": "postgres",
    "mysql://me:secret@127.0.0.1:1/x": "mysql",
    "mariadb://me:secret@127.0.0.1:1/x": "mariadb",
    "amqp://me:secret@127.0.0.1:1/%2F": "rabbitmq",
}

#: What an extra brings beside itself.
BRINGS = {
    "postgres": {"sql"},
    "mysql": {"sql", "mariadb"},
    "mariadb": {"sql", "mysql"},
    "all": {*NOBODY_THERE.values(), "conformance"},
}


def works(url: str) -> None:
    """A worker takes a task there and does its two steps."""
    results: queue.Queue[int] = queue.Queue()

    def double(args: dict[str, Any]) -> dict[str, Any]:
        return {"n": args["n"] * 2}

    def report(args: dict[str, Any]) -> None:  # not every broker can be asked for a result
        results.put(args["n"])

    app = App(url)
    app.register("double", double, report)
    with app.worker("orders"):
        app.queue("orders").enqueue("double", {"n": 21})
        result = results.get(timeout=30)
    app.close()
    expect(result == 42, f"a task on {url.partition('://')[0]}:// gave {result}")


def refused(url: str, extra: str, *, there: bool) -> None:
    """Without its driver a broker names its extra; with it, it says that nobody is there. No password in either."""
    sentence = f"pip install 'gotasks[{extra}]'"
    try:
        with_app = App(url)
        with_app.queue_len("orders")
    except GotasksError as error:
        said = str(error)
    else:
        said = "nothing"
    expect((sentence in said) is not there, f"{url.partition('://')[0]}:// with {sys.argv[2]} says: {said}")
    expect("secret" not in said, f"{url.partition('://')[0]}:// shows a password")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line, as it was installed."""
    program = Path(sys.executable).parent / "gotasks"
    return subprocess.run([program, *words], capture_output=True, text=True, check=False, timeout=120)


def expect(holds: bool, otherwise: str) -> None:
    """End with a message unless it holds."""
    if not holds:
        sys.exit(otherwise)


def main(version: str, extras: set[str], places: dict[str, str]) -> None:
    """All of it."""
    for extra in tuple(extras):
        extras |= BRINGS.get(extra, set())
    home = Path(gotasks.__file__)
    expect(home.is_relative_to(sys.prefix), f"gotasks came from {home}, not from the environment")
    expect(gotasks.__version__ == version, f"gotasks.__version__ is {gotasks.__version__}, not {version}")
    said = command("--version")
    expect(version in said.stdout, f"gotasks --version says {said.stdout}{said.stderr}")

    said = command("brokers", "--json")
    listed = {each["scheme"] for each in json.loads(said.stdout)} if said.returncode == 0 else set()
    wanted = {"memory", *(url.partition("://")[0] for url in NOBODY_THERE)}
    expect(wanted <= listed, f"gotasks brokers lists {sorted(listed)}: {said.stderr}")

    works("memory://")
    with tempfile.TemporaryDirectory() as folder:
        if "sql" in extras:
            works(f"sqlite:///{folder}/tasks.db")
    for extra in sorted(extras & places.keys()):
        works(places[extra])
    for url, extra in NOBODY_THERE.items():
        refused(url, extra, there=extra in extras)

    said = command("check", "memory://", "--quick", "--only", "DLV-01")
    if "conformance" in extras:
        expect(said.returncode == 0, f"gotasks check: {said.stdout}{said.stderr}")
    else:
        expect(
            "pip install 'gotasks[conformance]'" in said.stderr, f"gotasks check: {said.stdout}{said.stderr}"
        )


if __name__ == "__main__":
    main(sys.argv[1], set(filter(None, sys.argv[2].split(","))), json.loads("".join(sys.argv[3:]) or "{}"))
