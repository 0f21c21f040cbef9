"""Process: a worker process of the suite, and what signals do to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gotasks.conformance.expect import Nonconformance
from gotasks.conformance.faulty import ENGINE_FAULT, TRIPPED
from gotasks.conformance.kit import lifeline

#: Nothing takes that long; a busy machine gets the time. Seconds.
PATIENCE = 20.0


def until(
    condition: Callable[[], object], what: str, *, timeout: float = PATIENCE, pause: float = 0.01
) -> None:
    """Return as soon as `condition` holds. Raises Nonconformance after `timeout` seconds: `what` wasn't seen."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise Nonconformance(f"within {timeout:g} s not seen: {what}")
        time.sleep(pause)  # between two looks at what another process does


def environment(url: str, **own: str) -> dict[str, str]:
    """That of a process of the suite on the broker at `url`. What is set for other workers here isn't for these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GOTASKS_") or name in (TRIPPED, ENGINE_FAULT)
    }
    # It has to find what this process finds, wherever it stands.
    path = os.pathsep.join(os.path.abspath(each) for each in sys.path)  # noqa: PTH100 - "" is the directory here
    return {**kept, "GOTASKS_BROKER_URL": url, lifeline.VARIABLE: "1", "PYTHONPATH": path, **own}


class Process:
    """One worker process. Its pid is that of the history."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str], directory: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                words,
                env=env,
                cwd=directory,
                stdin=subprocess.PIPE,  # its end tells the worker that the suite is no more
                stdout=output,
                stderr=output,
            )
        self.pid = self._process.pid

    @property
    def output(self) -> str:
        """What it has said so far, on stdout and stderr."""
        return self._log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def state(self) -> str:
        """Whether it lives, or how it ended."""
        code = self._process.poll()
        return "alive" if code is None else f"ended with code {code}"

    @property
    def last_words(self) -> str:
        """The end of what it has said."""
        return self.output[-300:].strip()

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
            if found is not None and found.si_code != os.CLD_STOPPED:
                raise self._ended("it should stand still")
            return found is not None

        until(stands, f"worker {self.pid} stopped by a signal", pause=0.001)

    def thaw(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait for its end. Also one that is frozen, or has ended."""
        self._process.kill()
        self._process.wait()

    def killed(self) -> None:
        """Return when it has been killed, by itself at its kill-point."""
        until(lambda: not self.alive, f"worker {self.pid} has met its kill-point")
        if self._process.returncode != -signal.SIGKILL:
            raise self._ended("it should be killed at its kill-point")

    def started(self) -> None:
        """Return when it is ready to acquire tasks."""
        until(lambda: "worker started" in self.output or not self.alive, f"worker {self.pid} has started")
        if not self.alive:
            raise self._ended("it should work")

    def stop(self) -> None:
        """SIGTERM, and return when it has taken notice."""
        self.signal(signal.SIGTERM)
        self.stopping()

    def stopping(self) -> None:
        """Return when it has taken notice of the signal to stop."""
        until(lambda: "stopping" in self.output or not self.alive, f"worker {self.pid} has begun to stop")

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for its end. Returns the exit code, a negative one for a signal."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Nonconformance(
                f"worker {self.pid} doesn't end within {timeout:g} s; it said: {self.output[-1000:]}"
            ) from None

    def close(self) -> None:
        """Kill it if it's there, and let go of it."""
        self.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _ended(self, instead: str) -> Nonconformance:
        code = self._process.poll()
        return Nonconformance(
            f"worker {self.pid} ended with code {code}, and {instead}; it said: {self.output[-1000:]}"
        )
