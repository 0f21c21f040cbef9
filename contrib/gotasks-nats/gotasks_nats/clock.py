"""ServerClock: the server's time, told from the times at which it stored messages."""

from __future__ import annotations

import time

_NS = 1_000_000_000


class ServerClock:
    """Never ahead of the server's clock by more than what happened since the last answer; no wall clock of ours counts.

    The server stamps each message that it stores. When one arrives here, the server's clock shows at least its stamp;
    when one was sent here, it showed no more than the stamp that it then got.
    """

    def __init__(self) -> None:
        self._ahead: int | None = None  #: by so much the server's clock is ahead of `time.monotonic`, ns

    def now(self) -> int:
        """The server's time in ns; 0 if nothing is known yet."""
        return 0 if self._ahead is None else time.monotonic_ns() + self._ahead

    def arrived(self, stamp: int) -> None:
        """A message that was stored at `stamp` has arrived just now."""
        ahead = stamp - time.monotonic_ns()
        if self._ahead is None or ahead > self._ahead:
            self._ahead = ahead

    def sent(self, stamp: int, at: float) -> None:
        """A message that was sent at `at` (`time.monotonic()`, s) was stored at `stamp`."""
        ahead = stamp - int(at * _NS)
        if self._ahead is None or ahead < self._ahead:
            self._ahead = ahead
