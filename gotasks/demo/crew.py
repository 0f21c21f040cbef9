"""Crew: the worker processes of the demo, one of which is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from gotasks.demo.app import LIFELINE
from gotasks.demo.plan import Plan
from gotasks.errors import GotasksError

if TYPE_CHECKING:
    from typing_extensions import Self

#: How long a worker may take to stop cleanly, in seconds.
_GRACE = 15.0


class Crew:
    """Real `gotasks worker` processes. Single-threaded use."""

    def __init__(self, plan: Plan, url: str) -> None:
        self._plan = plan
        self._lifeline, self._mine = os.pipe()
        # Whatever else is set for other workers in this shell (limits, leases, queues) isn't for these.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GOTASKS_")}
        own = {"GOTASKS_BROKER_URL": url, LIFELINE: str(self._lifeline), **plan.variable()}
        self._environment = {**inherited, **own}  # not on the command line, where anybody sees passwords
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> int:
        """Start one more worker. Returns its pid."""
        command = [sys.executable, "-m", "gotasks", "worker", "gotasks.demo.app:app", "-q", self._plan.queue]
        with self._plan.path("workers.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._lifeline,),
                start_new_session=True,  # Ctrl-C is for the demo, which then stops its workers
            )
        self._processes[process.pid] = process
        return process.pid

    @property
    def pids(self) -> list[int]:
        """Those that were started and not killed."""
        return list(self._processes)

    def check(self) -> None:
        """Raises GotasksError if a worker has ended by itself."""
        for pid, process in self._processes.items():
            if process.poll() is not None:
                raise GotasksError(
                    f"worker {pid} ended by itself (exit {process.returncode}): {self._last_words()}"
                )

    def freeze(self, pid: int) -> bool:
        """Stop a worker's clock; returns when it stands. False if it has ended instead.

        What it holds while it stands it still holds when it is killed.
        """
        os.kill(pid, signal.SIGSTOP)
        _, status = os.waitpid(pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return True
        self._processes[pid].returncode = os.waitstatus_to_exitcode(status)
        return False

    def thaw(self, pid: int) -> None:
        """Let a frozen worker go on."""
        os.kill(pid, signal.SIGCONT)

    def kill(self, pid: int) -> None:
        """SIGKILL, and wait for its end."""
        process = self._processes.pop(pid)
        process.kill()
        process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.stop()
        finally:  # stopping was interrupted
            self.close()

    def stop(self) -> None:
        """Stop all cleanly; kill those that take too long. Idempotent."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def close(self) -> None:
        """Make sure that none is left. Once only."""
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._processes.clear()
        os.close(self._lifeline)
        os.close(self._mine)

    def _last_words(self) -> str:
        text = self._plan.path("workers.log").read_text("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines()]
        return next((line for line in reversed(lines) if line), "it said nothing")
