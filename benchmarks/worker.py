"""Worker: processes of a peer that work, as started by its own command; their memory and CPU time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import processes

#: Seconds that a worker has to stop before it is killed.
GRACE = 10.0


class WorkerFailed(Exception):
    """A worker ended by itself. The message holds the end of its log."""


class Worker:
    """Some commands, each in a process group of its own. Whoever starts them calls `stop`."""

    def __init__(
        self, commands: Sequence[Sequence[str]], environment: Mapping[str, str], folder: Path
    ) -> None:
        """`folder`: where they run and where their logs go. Started at once."""
        self._logs = [folder / f"worker-{number}.log" for number, _ in enumerate(commands)]
        self._processes = []
        for command, log in zip(commands, self._logs, strict=True):
            with log.open("wb") as output:
                self._processes.append(
                    subprocess.Popen(
                        list(command),
                        cwd=folder,
                        env=dict(environment),
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,  # so that its children can be ended with it
                    )
                )

    def check(self) -> None:
        """Raise WorkerFailed if one of them has ended."""
        for process, log in zip(self._processes, self._logs, strict=True):
            if process.poll() is not None:
                raise WorkerFailed(f"a worker ended with {process.returncode}: {_tail(log)}")

    def log(self) -> str:
        """The end of each log."""
        return "\n".join(_tail(log) for log in self._logs)

    def stop(self) -> None:
        """SIGTERM to each command, and SIGKILL to what is left of its group."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def memory(self) -> float:
        """MiB that the largest process has in memory (RSS), of these and all that they started. Linux only."""
        return max(processes.memory(pid, "VmRSS") for pid in self._tree())

    def peak(self) -> float:
        """MiB that the largest process had at most since its start. Linux only."""
        return max(processes.memory(pid, "VmHWM") for pid in self._tree())

    def cpu(self) -> float:
        """Seconds of CPU time that they have used, and all that they started. Linux only."""
        return sum(map(processes.cpu, self._tree()))

    def _tree(self) -> set[int]:
        """These processes and their descendants."""
        return processes.tree([process.pid for process in self._processes])


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
