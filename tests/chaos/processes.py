"""Processes: real `gotasks worker` processes that are stopped, continued and killed by real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos import jobs, lifeline

if TYPE_CHECKING:
    from typing_extensions import Self

_ROOT = Path(__file__).resolve().parents[2]

#: The app of all these processes.
APP = "tests.chaos.jobs:app"


def until(condition: Callable[[], object], what: str, *, timeout: float = 20.0, pause: float = 0.01) -> None:
    """Return as soon as `condition` holds. Fails after `timeout` seconds, saying `what` didn't come."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout:g} s: {what}"
        time.sleep(pause)  # between two looks at what another process does


class Process:
    """One worker process. Its pid is that of the history."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid

    @property
    def output(self) -> str:
        """What it has said so far, on stdout and stderr."""
        return self._log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> float:
        """Send a signal; returns the monotonic time right before."""
        moment = time.monotonic()
        self._process.send_signal(number)
        return moment

    def freeze(self) -> None:
        """SIGSTOP, and return when it stands: whatever it holds now, it still holds when it is killed next."""
        self.signal(signal.SIGSTOP)
        self.frozen()

    def frozen(self) -> None:
        """Return when it stands, whoever stopped it."""

        def stands() -> bool:
            # Not waitpid, which would take the news of an end away from Popen.
            found = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT)
            assert found is None or found.si_code != os.CLD_EXITED, f"it has ended: {self.output}"
            return found is not None and found.si_code == os.CLD_STOPPED

        until(stands, f"worker {self.pid} stopped by a signal", pause=0.001)

    def thaw(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait for its end. Also one that is frozen, or has ended."""
        self._process.kill()
        self._process.wait()

    def started(self) -> None:
        """Return when it is ready to acquire tasks."""
        until(lambda: "worker started" in self.output or not self.alive, f"worker {self.pid} has started")
        assert self.alive, self.output

    def stopping(self) -> None:
        """Return when it has taken notice of the signal to stop."""
        until(lambda: "stopping" in self.output, f"worker {self.pid} has begun to stop")

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for its end. Returns the exit code, a negative one for a signal."""
        return self._process.wait(timeout)

    def close(self) -> None:
        """Kill it if it's there, and let go of it."""
        self.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()


class Fleet:
    """Workers of one test, on one broker, with one history. None outlives the `with` block, or this process."""

    def __init__(self, directory: Path, url: str, history: Path) -> None:
        self._directory = directory
        # Whatever is set for other workers in this shell isn't for these.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GOTASKS_")}
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        own = {"GOTASKS_BROKER_URL": url, jobs.HISTORY: str(history), "PYTHONPATH": path}
        self._environment = {**inherited, **own}
        self._started: list[Process] = []

    def start(
        self,
        queue: str,
        *,
        limit: int = 4,
        lease: float = 2.0,
        grace: float = 30.0,
        processes: int = 1,
        freeze: str | None = None,
    ) -> Process:
        """Start one more worker, or a supervisor of several. `freeze`: see `FreezingBroker`."""
        words = ["worker", APP, "-q", f"{queue}:{limit}", f"--lease={lease}", f"--grace={grace}"]
        words.append(f"--processes={processes}")
        environment = {**self._environment, lifeline.VARIABLE: "1"}
        if freeze is not None:
            environment[jobs.FREEZE] = freeze
        log = self._directory / f"worker-{len(self._started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._command(*words),
                env=environment,
                cwd=self._directory,
                stdin=subprocess.PIPE,  # its end tells the worker that the test is no more
                stdout=output,
                stderr=output,
            )
        self._started.append(Process(process, log))
        return self._started[-1]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command of gotasks for this app."""
        return subprocess.run(
            self._command(*words, "--app", APP),
            env=self._environment,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._started:
            process.close()
            # pytest shows it if the test has failed.
            sys.stdout.write(f"worker {process.pid} said:\n{process.output[-2000:]}\n")

    @staticmethod
    def _command(*words: str) -> list[str]:
        return [sys.executable, "-m", "gotasks", *words]
