"""Timer: how long something is measured, what is said meanwhile, and how Ctrl-C ends it without leaving anything."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from gotasks.errors import GotasksError

#: Whatever takes so much longer than it should has come to a standstill. Seconds.
PATIENCE = 60.0

#: So often it is told how far a measure is, and so often it is looked for what shall be waited for. Seconds.
_BETWEEN = 0.1
_GLANCE = 0.005

#: Is told what is measured, and which part of it is done, from 0 to 1.
Progress = Callable[[str, float], None]


class Stopped(Exception):
    """Somebody has asked for the end."""


class Timer:
    """Measures the time of one thing after the other. For one thread, the main one."""

    def __init__(self, seconds: float, progress: Progress, check: Callable[[], None]) -> None:
        """`seconds`: what each thing shall take. `check` raises when something has gone wrong elsewhere."""
        self.seconds = seconds
        self._progress = progress
        self._check = check
        self._asked = False

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Within the block Ctrl-C and SIGTERM end the next lap with Stopped. The second one is a KeyboardInterrupt.

        So the first one comes when a worker can be stopped and a queue can be emptied, and never amid that.
        """

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            if self._asked:
                raise KeyboardInterrupt
            self._asked = True

        before = {each: signal.signal(each, on_signal) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def tell(self, what: str, part: float) -> None:
        """Say how far a measure is, from 0 to 1."""
        self._progress(what, part)

    def laps(
        self, what: str, *, enough: Callable[[], bool], all_done: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """One lap after the other until the time is over, and it's enough; or until all is done.

        Raises Stopped, what `check` raises, or GotasksError if it isn't enough for too long.
        """
        began = time.monotonic()
        told = -_BETWEEN
        while not all_done():
            spent = time.monotonic() - began
            self._go_on(what, spent - self.seconds)
            if spent >= self.seconds and enough():
                break
            if spent >= told + _BETWEEN:
                told = spent
                self._progress(what, min(spent / self.seconds, 1.0))
            yield
        self._check()
        self._progress(what, 1.0)

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for something. Raises as `laps`."""
        began = time.monotonic()
        while not condition():
            self._go_on(what, time.monotonic() - began)
            time.sleep(_GLANCE)

    def _go_on(self, what: str, late: float) -> None:
        if self._asked:
            raise Stopped
        self._check()
        if late > PATIENCE:
            raise GotasksError(f"{what}: nothing has moved for {PATIENCE:.0f} s, so nothing was measured")
