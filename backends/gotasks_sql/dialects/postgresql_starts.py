"""Starts: where in the indexes of PostgreSQL the next claim of a queue begins.

What has been taken stays in an index until a vacuum, and a scan from the end passes all of it: with a million tasks
worked off since the last vacuum, a claim would cost several times as much. So it begins where the last one ended. What
was committed late or became due may stand before that place, so there is a look from the start once a second, and
whenever less was found than was wanted.
"""

from __future__ import annotations

import time
from typing import NamedTuple

#: At least so often a claim looks from the start. Seconds.
_EVERY = 1.0


class Start(NamedTuple):
    """Where a claim begins."""

    #: Of its own rank it passes what stands before `place`, but for what was put to the front, whose place is below
    #: zero. The ranks before it are seen whole.
    rank: int
    place: int
    since: int  #: what was due, and which lease was over, by then has been seen: microseconds since 1970


#: Before all that can be there.
FIRST = Start(rank=-(2**15), place=0, since=0)


class Starts:
    """Those of the queues of one broker. Any thread may use it: of two that write at once, either may be right."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Start, float]] = {}

    def of(self, queue: str) -> Start:
        """The one of the next claim."""
        start, ends = self._known.get(queue, (FIRST, 0.0))
        return start if time.monotonic() < ends else FIRST

    def went_on(self, queue: str, start: Start, last: Start) -> None:
        """A claim that began at `start` took all it wanted, up to `last`."""
        _, ends = self._known.get(queue, (FIRST, 0.0))
        if start is FIRST:
            ends = time.monotonic() + _EVERY
        # What it took may all have been of higher ranks: what was passed of its own is passed again.
        rank, place = max(start[:2], last[:2])
        self._known[queue] = Start(rank, place, last.since), ends

    def forget(self, queue: str) -> None:
        """The next claim looks from the start."""
        self._known.pop(queue, None)
