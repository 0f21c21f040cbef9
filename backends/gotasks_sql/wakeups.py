"""Wakeups: how a worker that waits on a queue hears that there may be something in it."""

from __future__ import annotations

import threading
from collections import defaultdict

#: A queue that isn't heard of from elsewhere is looked at again after this, at first and at the most. Seconds.
SOON, LATE = 0.005, 1.0


class Wakeups:
    """Who waits is woken by what this process does, and by `wake`; else it looks again after a while. Thread-safe.

    A ticket is drawn before a queue is looked at: what comes between the look and the wait isn't missed.
    """

    def __init__(self, latest: float = LATE) -> None:
        """`latest`: seconds after which a waiting worker looks again, if nobody wakes it."""
        self._latest = latest
        self._changed = threading.Condition()
        self._tickets: dict[str, int] = defaultdict(int)
        self._all = 0
        self._pauses: dict[str, float] = {}
        self._busy: set[str] = set()

    def ticket(self, queue: str) -> int:
        """A number that changes with every wake of this queue."""
        with self._changed:
            return self._tickets[queue] + self._all

    def wake(self, queue: str | None = None) -> None:
        """Have those who wait on `queue`, or on any, look again."""
        with self._changed:
            if queue is None:
                self._all += 1
            else:
                self._tickets[queue] += 1
            self._changed.notify_all()

    def wait(self, queue: str, ticket: int, timeout: float) -> None:
        """Until the queue is woken, or it's time to look again; `timeout` seconds at the most."""
        pause = self._pauses.get(queue, SOON)
        self._pauses[queue] = min(pause * 2, self._latest)
        self._wait(queue, ticket, min(pause, timeout))

    def _wait(self, queue: str, ticket: int, timeout: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._tickets[queue] + self._all != ticket, timeout)

    def close(self) -> None:
        """Wake everybody; nobody waits any more."""
        self.wake()

    def found(self, queue: str, *, something: bool) -> None:
        """What a claim has found: after something, whoever waits next looks again soon."""
        if something:
            self._pauses.pop(queue, None)
            self._busy.add(queue)
        else:
            self._busy.discard(queue)

    def is_busy(self, queue: str) -> bool:
        """Whether the last claim found something, so that the next one may well find more."""
        return queue in self._busy
