"""Supervisor: keeps N worker processes running, restarts those that die, and stops them all together.

The children hold the read end of a pipe whose write end only the supervisor has. Its end is the order to stop
cleanly: the supervisor closes it on SIGTERM or SIGINT, and the kernel does if the supervisor is killed. Signals
aren't passed on as signals: systemd, for one, sends SIGTERM to every process of a service itself, and a child that
got two would take the second for "at once". The children have sessions of their own, so that the end of a terminal
(SIGHUP) ends only the supervisor, and they stop cleanly.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType

logger = logging.getLogger("gotasks")

#: Names the file descriptor of the pipe in a child's environment.
FD_VARIABLE = "GOTASKS_SUPERVISOR_FD"

#: A child that lived for less is restarted later and later, from the first of these pauses to the last. Seconds.
_QUICK = 5.0
_PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)

#: What a child may need after its grace time, to have its last writes answered. Seconds.
_AFTER_GRACE = 20.0

#: How a child may end when it is asked to: also by the signal itself, if it came before the worker had begun.
_CLEAN = (0, -signal.SIGTERM, -signal.SIGINT)


class Supervisor:
    """Runs `command` in `processes` child processes. `run` once only, on the main thread."""

    def __init__(
        self, command: Sequence[str], processes: int, *, grace: float, env: Mapping[str, str] | None = None
    ) -> None:
        """`grace`: how long a child's own clean stop may take, in seconds. `env`: by default this process's."""
        self._command = list(command)
        self._grace = grace
        self._env = dict(os.environ if env is None else env)
        self._children = [_Child() for _ in range(processes)]
        # A SimpleQueue, since a signal handler may put into it whatever the main thread is doing with it.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._signals: list[int] = []
        self._pipe = (-1, -1)

    @property
    def living(self) -> frozenset[int]:
        """The ids of the processes that run. Any thread."""
        processes = [child.process for child in self._children]
        return frozenset(each.pid for each in processes if each is not None and each.returncode is None)

    def run(self) -> int:
        """Keep the processes running until SIGTERM or SIGINT; then stop them. Returns the exit code for this one.

        0: all have stopped cleanly; 1: one hadn't by the end of its grace time and was killed, or failed. A second
        signal kills them at once, and the code is 128 and its number.
        """
        before = {
            number: signal.signal(number, handler)
            for number, handler in (
                (signal.SIGTERM, self._on_signal),
                (signal.SIGINT, self._on_signal),
                (signal.SIGCHLD, self._on_child),
            )
        }
        self._pipe = os.pipe()  # neither end is inherited unless it's said so
        try:
            while not self._signals:
                now = time.monotonic()
                for child in self._children:
                    child.look(now)
                    if child.process is None and child.due <= now and not self._signals:
                        child.start(self._command, self._env, self._pipe[0])
                self._sleep(
                    min([1.0, *(child.due - now for child in self._children if child.process is None)])
                )
            return self._stop()
        finally:
            self._close_pipe()  # whatever happened here, the children stop cleanly
            for number, previous in before.items():
                signal.signal(number, previous)

    def _stop(self) -> int:
        logger.info(
            "%s: stopping %d processes; once more to kill them",
            signal.Signals(self._signals[0]).name,
            len(self.living),
        )
        running = [child.process for child in self._children if child.process is not None]
        self._close_pipe()
        end = time.monotonic() + self._grace + _AFTER_GRACE
        while any(process.poll() is None for process in running):
            if len(self._signals) > 1:
                logger.warning("killing %d processes", len(self.living))
                self._kill()
                return 128 + self._signals[1]
            left = end - time.monotonic()
            if left <= 0:
                logger.error(
                    "%d processes don't stop and are killed; their tasks count as crashed", len(self.living)
                )
                self._kill()
                return 1
            self._sleep(min(left, 1.0))
        failed = [process for process in running if process.returncode not in _CLEAN]
        for process in failed:
            logger.error(
                "process %d ended with %s instead of stopping", process.pid, _ending(process.returncode)
            )
        return 1 if failed else 0

    def _kill(self) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.kill()
                child.process.wait()

    def _close_pipe(self) -> None:
        for end in self._pipe:
            if end >= 0:
                os.close(end)
        self._pipe = (-1, -1)

    def _sleep(self, seconds: float) -> None:
        """Until a signal comes, or for `seconds`."""
        try:
            self._wake.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)
        self._wake.put(None)

    def _on_child(self, _number: int, _frame: FrameType | None) -> None:
        self._wake.put(None)


class _Child:
    """One of the N: the process that runs now, or when the next one is started."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.due = 0.0
        self._started = 0.0
        self._quick = 0  #: deaths in a row that came soon after the start

    def start(self, command: Sequence[str], env: Mapping[str, str], pipe: int) -> None:
        """Start a process that has `pipe`."""
        self._started = time.monotonic()
        try:
            self.process = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                env={**env, FD_VARIABLE: str(pipe)},
                pass_fds=(pipe,),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:  # no memory or no process left; it may come back
            logger.error("a process can't be started, it is tried again: %s", error)
            self._again(quick=True)
        else:
            logger.info("process %d started", self.process.pid)

    def look(self, now: float) -> None:
        """See whether it has died, and when to replace it then."""
        process = self.process
        if process is None or process.poll() is None:
            return
        self.process = None
        pause = self._again(quick=now - self._started < _QUICK)
        what = f"in {pause:g} s" if pause else "now"
        logger.warning(
            "process %d ended with %s; another is started %s", process.pid, _ending(process.returncode), what
        )

    def _again(self, *, quick: bool) -> float:
        self._quick = self._quick + 1 if quick else 0
        pause = _PAUSES[min(max(self._quick - 1, 0), len(_PAUSES) - 1)]
        self.due = time.monotonic() + pause
        return pause


class Lifeline:
    """The child's end of the pipe: something is put into `orders` when the supervisor says stop, or is no more."""

    def __init__(self, pipe: int) -> None:
        self.orders: queue.SimpleQueue[None] = queue.SimpleQueue()
        os.set_inheritable(pipe, False)
        self._pipe = pipe
        threading.Thread(target=self._watch, name="gotasks-lifeline", daemon=True).start()

    @classmethod
    def inherited(cls) -> Lifeline | None:
        """The one that a supervisor has left for this process, if there is one."""
        text = os.environ.pop(FD_VARIABLE, "")  # not for the processes that a handler may start
        try:
            if text and stat.S_ISFIFO(os.fstat(int(text)).st_mode):
                return cls(int(text))
        except (OSError, ValueError):
            pass
        return None

    def _watch(self) -> None:
        try:
            while os.read(self._pipe, 1):
                pass
        except OSError as error:
            logger.error("the supervisor can't be watched any more: %s", error)
        self.orders.put(None)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
