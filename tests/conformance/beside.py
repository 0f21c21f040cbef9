"""What runs beside: whole checks, which mostly wait for leases, restarts and deaths, so that together they take little
more time than the longest alone. Each has processes, a place and private servers of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import Executor
from pathlib import Path

from tests.conformance.stranger import Command, pytest_of

#: Backend → the profile that it reaches. The longest begin first: a RabbitMQ server takes seconds to start. "recorded"
#: takes five minutes, for one parameter of RabbitMQ's URL, so not every run has it.
PROFILES = {
    "rabbitmq": "durable",
    **({"recorded": "full"} if os.environ.get("GOTASKS_TEST_STORMS") == "full" else {}),
    "postgresql": "full",
    "mariadb": "full",
    "mysql": "full",
    "redis": "durable",
    "sqlite": "full",
    "memory": "core",
}

#: What is needed of servers that doesn't have the backend's name: "recorded" is RabbitMQ with its records on Redis.
SERVERS = {"recorded": ("rabbitmq", "redis")}

#: So many at a time, each with two processes of its own. They wait most of their time, but those of databases less than
#: others; more at once would make the two cores of a small machine the measure of everything.
AT_A_TIME = 2

#: For the class of a stranger's pytest, on the memory broker.
THE_CLASS = "the class"


class Beside:
    """A program that goes on beside the tests, as soon as the pool has a thread for it."""

    def __init__(self, command: Command, pool: Executor) -> None:
        self.directory = command.directory
        self._command = command
        self._lock = threading.Lock()
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._outcome = pool.submit(self._run)

    def _run(self) -> tuple[int, str]:
        log = self.directory / "log"
        with self._lock, log.open("wb") as output:
            if self._closed:
                return -1, ""
            self._process = subprocess.Popen(
                self._command.words,
                cwd=self.directory,
                env=self._command.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return self._process.wait(), log.read_text()

    def ended(self) -> tuple[int, str]:
        """Wait for its end; its exit code and what it said."""
        return self._outcome.result()

    def close(self) -> None:
        """Kill it, should it still run, and its processes end with it; never start it, should it not have begun."""
        with self._lock:
            self._closed = True
        if self._process is not None:
            self._process.kill()


def check(directory: Path, url: str, profile: str) -> Command:
    """`gotasks check --quick`; its report will be `out.json` in the directory."""
    words = ["check", url, "--quick", f"--profile={profile}", "--report=out.json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GOTASKS_")}
    return Command([sys.executable, "-m", "gotasks", *words], directory, environment)


def the_class(directory: Path) -> Command:
    """A stranger's class with every row."""
    return pytest_of(directory, 'broker_url = "memory://"')
