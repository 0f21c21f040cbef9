"""The command line as its users meet it: real processes in a directory with a module of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: The module of a user. A handler with a gate says that it has started, and waits until the file is there.
SHOP = """
import pathlib
import time

from gotasks import App, reentrant

app = App("redis://127.0.0.1:1/0")  # nobody listens there: each test names its broker


def charge(args):
    if "gate" in args:
        gate = pathlib.Path(args["gate"])
        gate.with_suffix(".started").touch()
        while not gate.exists():
            time.sleep(0.005)
    if args.get("fail"):
        raise ValueError("card declined")
    return {**args, "paid": True}


def receipt(args):
    if args.get("lost_mail"):
        raise OSError("no mail server")
    return {**args, "sent": True}


app.register("checkout", charge, reentrant(receipt, max_times=1, sleepy_ms=1))
app.queue("orders", max_limit=3)
app.queue("mail", max_limit=2)
"""


class Cli:
    """`gotasks` in a directory, with nothing of GOTASKS_* in its environment but what is given."""

    def __init__(self, directory: Path, **env: str) -> None:
        self.directory = directory
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("GOTASKS_")}
        self.env.update(env)
        self._started: list[Background] = []
        self.module("shop", SHOP)

    def module(self, name: str, source: str) -> None:
        """Put a module into the directory."""
        (self.directory / f"{name}.py").write_text(source)

    def run(
        self, *words: str, code: int = 0, stdin: str = "", timeout: float = 50, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, and assert its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "gotasks", *words],
            cwd=self.directory,
            env={**self.env, **env},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == code, f"{words}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *words: str, code: int = 0, **env: str) -> Any:
        """What a command prints with --json."""
        return json.loads(self.run(*words, "--json", code=code, timeout=50, **env).stdout)

    def start(self, *words: str, **env: str) -> Background:
        """Start a command that goes on."""
        log = self.directory / f"log-{len(self._started)}"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "gotasks", *words],
                cwd=self.directory,
                env={**self.env, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # what a test sends to its group must not reach pytest
            )
        self._started.append(Background(process, log))
        return self._started[-1]

    def worker(self, *words: str, **env: str) -> Background:
        """Start a worker, and wait until it works."""
        started = self.start("worker", *words, **env)
        started.until_logged("worker started")
        return started

    def enqueue(self, *words: str) -> str:
        """The id of a new task in the queue `orders`."""
        return self.run("enqueue", "checkout", *words, "-q", "orders").stdout.strip()

    def in_handler(self, name: str) -> tuple[str, Path]:
        """Enqueue a task, and wait until its first handler has been started; it waits for the file that is returned."""
        gate = self.directory / f"{name}.gate"
        task_id = self.enqueue(f"gate={json.dumps(str(gate))}")
        until(gate.with_suffix(".started").exists, f"{task_id} isn't started")
        return task_id, gate

    def state(self, task_id: str) -> str:
        """A task's state; never in the fatal queue, for which `status` has another exit code."""
        value: str = self.json("status", task_id)["state"]
        return value

    def is_fatal(self, *task_ids: str) -> bool:
        """Whether all these tasks are in the fatal queue."""
        return set(task_ids) <= {each["id"] for each in self.json("fatal", "list")}

    def until_fatal(self, *task_ids: str) -> None:
        """Wait until they are."""
        until(lambda: self.is_fatal(*task_ids), "not in the fatal queue")

    def close(self) -> None:
        """Kill what still runs."""
        for started in self._started:
            started.process.kill()
            started.process.wait()
            for pid in started.children:  # should they not have ended by themselves
                if lives(pid) and "gotasks" in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(pid, signal.SIGKILL)


class Background:
    """A command that goes on, and what it has said on stdout and stderr."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def children(self) -> list[int]:
        """The processes that a supervisor has started, the first one first."""
        return [int(pid) for pid in re.findall(r"process (\d+) started", self.log)]

    def until_logged(self, text: str, times: int = 1) -> None:
        def logged() -> bool:
            assert self.log.count(text) >= times or self.process.poll() is None, self.log
            return self.log.count(text) >= times

        until(logged, lambda: f"{text!r} isn't in the log:\n{self.log}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ends(self, code: int) -> None:
        assert self.process.wait(30) == code, self.log


def until(condition: Callable[[], object], what: Callable[[], str] | str, *, within: float = 20.0) -> None:
    """Wait until the condition holds; fail after `within` seconds."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, what if isinstance(what, str) else what()
        time.sleep(0.01)


def lives(pid: int) -> bool:
    """Whether a process runs. One that has ended and that nobody has asked for yet doesn't."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")
