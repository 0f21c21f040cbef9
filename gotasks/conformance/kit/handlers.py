"""Handlers: what rows of the engine have their tasks do. Each remembers how often it was called."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from gotasks import ArgsMap

#: A gate that nobody opens opens by itself, for a busy machine late enough. Seconds.
_LONGEST = 20.0


class Gate:
    """A handler that waits until it is opened, and counts how many are inside."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside = 0
        self.most = 0
        self.calls = 0
        self._lock = threading.Lock()

    def handler(self, args: ArgsMap) -> None:
        with self._lock:
            self.calls += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            self.open.wait(_LONGEST)
        finally:
            with self._lock:
                self.inside -= 1


class Steps:
    """Handlers that count their calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def one(self, args: ArgsMap) -> ArgsMap:
        self.calls.append("one")
        return {**args, "one": True}

    def two(self, args: ArgsMap) -> ArgsMap:
        self.calls.append("two")
        return {**args, "two": True}


class Calls:
    """A handler that raises the first `failures` times, and remembers when it was called and with what."""

    def __init__(self, failures: float = float("inf"), error: Callable[[], BaseException] = OSError) -> None:
        self.at: list[float] = []
        self.ended = 0.0  #: when the last call was over
        self.args: list[ArgsMap] = []
        self._failures = failures
        self._error = error

    def handler(self, args: ArgsMap) -> ArgsMap:
        self.at.append(time.monotonic())
        self.args.append({**args})
        self.ended = time.monotonic()
        if len(self.at) <= self._failures:
            raise self._error()
        return {**args, "calls": len(self.at)}

    @property
    def pauses(self) -> list[float]:
        """Seconds between one call and the next."""
        return [later - earlier for earlier, later in zip(self.at, self.at[1:], strict=False)]
