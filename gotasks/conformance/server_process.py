"""ServerProcess: a server of the suite's own, which may be stopped and killed. For an adapter's hook `server`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

#: Between two questions whether it answers, and whether it is gone. Seconds.
_PAUSE = 0.01

#: What is left of a server that was killed is gone after this at the latest. Seconds.
_GONE = 10.0

#: Where `/proc/PID/stat` says when it was started, counted from the field behind the state. See proc(5).
_STARTED = 18


class ServerProcess:
    """A program that serves on the loopback interface, and all that it starts. Not thread-safe.

    It may be started again after it was stopped or killed; by the same words, with what it kept.
    """

    def __init__(self, name: str, log: Path) -> None:
        """`name` is for messages; what the program says is added to `log`."""
        self._name = name
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id. Raises RuntimeError if it isn't running."""
        if self._process is None:
            raise RuntimeError(f"the private {self._name} isn't running")
        return self._process.pid

    def must_not_run(self) -> None:
        """Raise RuntimeError if it was started, and neither stopped nor killed since."""
        if self._process is not None:
            raise RuntimeError(f"the private {self._name} is running")

    def start(
        self, words: Sequence[str], answers: Callable[[], bool], *, timeout: float = 30.0, **options: Any
    ) -> None:
        """Run it; return when `answers` returns true. `options` are those of `subprocess.Popen`: `env`, `user`, …

        Raises RuntimeError, with the end of its log, if it ends or hasn't answered after `timeout` seconds.
        """
        self.must_not_run()
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that all of it can be killed
                **options,
            )
        end = time.monotonic() + timeout
        try:
            while not answers():
                died = self._process.poll() is not None
                if died or time.monotonic() > end:
                    why = "ended" if died else f"didn't answer within {timeout:g} s"
                    tail = self._log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"the private {self._name} {why}; its log ends with:\n{tail}")
                time.sleep(_PAUSE)
        except BaseException:  # Ctrl-C too: nobody else ends it
            self.kill()
            raise

    def stop(self, *, by: signal.Signals = signal.SIGTERM, timeout: float = 30.0) -> None:
        """Have it end in an orderly way, by a signal, and wait until it's gone. Does nothing if it isn't running.

        Raises subprocess.TimeoutExpired if it didn't within `timeout` seconds; then it was killed.
        """
        process = self._process
        if process is None:
            return
        children = _children(process.pid)  # of a process that is gone nobody can tell them any more
        process.send_signal(by)
        try:
            process.wait(timeout)
        finally:
            self._end(children)

    def kill(self) -> None:
        """SIGKILL of it and all its processes; return when they are gone. Does nothing if it isn't running."""
        if self._process is not None:
            self._end(_children(self._process.pid))

    def _end(self, children: Sequence[_Child]) -> None:
        process, self._process = self._process, None
        assert process is not None
        # Its children after it: a new server may not start while one of them is there.
        process.kill()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for each in filter(_lives, children):  # those that have left its group
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
        end = time.monotonic() + _GONE
        while any(map(_lives, children)) and time.monotonic() < end:
            time.sleep(_PAUSE)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _Child(NamedTuple):
    """A process, and when it was started: its id may be given to another one when it's gone."""

    pid: int
    started: str


def _children(pid: int) -> list[_Child]:
    try:
        found = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:  # another system than Linux: they see by themselves that their parent is gone
        return []
    return [_Child(each, started) for each in found if (started := _started(each))]


def _lives(child: _Child) -> bool:
    return _started(child.pid) == child.started


def _started(pid: int) -> str | None:
    """When the process was started; None if there's none, or only what nobody has asked for yet (a zombie)."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else fields[_STARTED]
