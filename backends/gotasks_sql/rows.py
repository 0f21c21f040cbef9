"""What goes into the rows of the table and what comes out of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

#: A microsecond has so many places, so that what one call stores at one time has an order.
PLACES = 1024


class Taken(NamedTuple):
    """A task that was claimed."""

    id: str
    body: bytes
    deaths: int
    rank: int
    unique_key: bytes | None


class Claim(NamedTuple):
    """What a claim brought."""

    taken: Sequence[Taken]  #: in the order in which they leave their queue
    next_in: float | None = None  #: nothing was taken: seconds until something is to be had by time alone


class Look(NamedTuple):
    """What a look at a queue has shown."""

    now: int  #: by the clock of the server
    something: bool  #: there is something to claim
    due: bool  #: some of it is due and has to be promoted before
    over: bool  #: some of it was left behind by a lease that is over
    next_in: float | None  #: there is nothing: seconds until there is by time alone

    @classmethod
    def of(cls, now: int, due: int | None, over: int | None, *, ready: bool) -> Look:
        """From the clock, and the first moments at which something is due and at which a lease is over."""
        is_due, is_over = (moment is not None and moment <= now for moment in (due, over))
        if ready or is_due or is_over:
            return cls(now, True, is_due, is_over, None)
        moments = [moment for moment in (due, over) if moment is not None]
        return cls(now, False, False, False, (min(moments) - now) / 1e6 if moments else None)


class Held(NamedTuple):
    """A task under a lease, and what is to be written."""

    id: str
    token: int
    seq: int = 0
    body: bytes = b""
    delay: int = 0  #: microseconds
    target: str | None = None  #: another queue


def microseconds(seconds: float) -> int:
    """Whole microseconds; what is above zero stays so, and what a column can't hold is three thousand years."""
    return max(int(min(seconds, 1e11) * 1e6), 1) if seconds > 0 else 0


def unique_key(text: str) -> bytes:
    """Any text as bytes, a lone surrogate included."""
    return text.encode("utf-8", "surrogatepass")


def unique_hash(text: str) -> bytes:
    """What stands for a unique key in the index, which takes no text of any length."""
    return hashlib.sha256(unique_key(text)).digest()
