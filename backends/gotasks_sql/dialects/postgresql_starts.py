"""Starts: where in the indexes of PostgreSQL the next claim of a queue begins.

What has been taken stays in an index until a vacuum, and a scan from the low end passes all of it: with a million tasks
worked off since the last vacuum, a claim would cost several times as much. So it begins where the last one ended, among
tasks of one priority; of higher ones it passes all. What was committed late may stand before that place, and comes
after its turn then; so there is a look from the start once a second, and after each claim that found less than it
wanted.
"""

from __future__ import annotations

import time
from typing import NamedTuple

#: At least so often a claim looks from the start. Seconds.
_EVERY = 1.0


class Start(NamedTuple):
    """Where a claim begins."""

    #: Of this rank it skips what stands before `place`, but not what was put to the front, whose place is below zero.
    #: The ranks before it are seen whole.
    rank: int
    place: int
    since: int  #: what was due, and which lease was over, by then has been seen: microseconds since 1970


#: Before all that can be there: no task has so low a rank.
FIRST = Start(rank=-(2**15), place=0, since=0)


class Starts:
    """Those of the queues of one broker. Any thread may use it."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Start, float]] = {}

    def of(self, queue: str) -> Start:
        """The one of the next claim."""
        start, ends = self._known.get(queue, (FIRST, 0.0))
        return start if time.monotonic() < ends else FIRST

    def went_on(self, queue: str, start: Start, last: Start) -> None:
        """A claim that began at `start` took all it wanted, up to `last`."""
        known, ends = self._known.get(queue, (FIRST, 0.0))
        if start is FIRST:
            ends = time.monotonic() + _EVERY
        elif start is not known:
            return  # another thread has looked from the start meanwhile, and may have more to see there
        # What it took may all have been of higher ranks: what was skipped of its own stays so.
        rank, place = max(start[:2], last[:2])
        self._known[queue] = Start(rank, place, last.since), ends

    def forget(self, queue: str) -> None:
        """The next claim looks from the start."""
        self._known.pop(queue, None)
