"""Sweep: an operation is cut after so many bytes of its requests, then of its replies, until it comes through.

    for cut in sweep(proxy, call, prepare=prepare, ready=ready, most=25):
        ...  # look at the state from a connection of your own; repeat the operation if it wasn't answered

It knows no protocol: it counts bytes, and waits until the server has closed its end of a connection that was cut, so
that whoever looks next sees all that the cut operation will ever have done. A client may connect again by itself, and
repeat the operation by itself: then it is answered though it was cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from gotasks.conformance.kit.proxy import Proxy
from gotasks.conformance.kit.traffic import BOTH, Direction
from gotasks.errors import BrokerUnavailable

G = TypeVar("G")
A = TypeVar("A")

#: How long a client may take to notice that its connection has gone, and a server to close its end. Seconds.
_NOTICES, _CLOSES = 20.0, 5.0

#: An operation may be longer than the one that was measured, by so many bytes.
_GROWTH = 64


@dataclass(frozen=True, kw_only=True)
class Cut(Generic[G, A]):
    """One try of an operation, and what came of it: an answer or an error."""

    direction: Direction
    count: int  #: so many bytes of it have passed, if it was cut
    sprung: bool  #: it was cut
    given: G  #: what was prepared for it
    answer: A | None
    error: BrokerUnavailable | None

    @property
    def answered(self) -> bool:
        return self.error is None

    def __str__(self) -> str:
        return f"cut after {self.count} bytes of its {self.direction}" if self.sprung else "not cut"


def sweep(
    proxy: Proxy,
    call: Callable[[G], A],
    *,
    prepare: Callable[[], G],
    ready: Callable[[], object],
    most: int,
) -> Iterator[Cut[G, A]]:
    """Try `call(prepare())` with cuts at up to `most` places in each direction; also twice without a cut.

    `ready` is called until it doesn't raise, so that the client is connected: what is counted is one operation alone.
    """
    for direction in BOTH:
        connect(ready)
        given = prepare()
        before = proxy.passed[direction]
        answer = call(given)
        total = proxy.passed[direction] - before
        yield Cut(direction=direction, count=total, sprung=False, given=given, answer=answer, error=None)
        for count in [*places(total, most), *range(total + 1, total + _GROWTH)]:
            connect(ready)
            cut = _try(proxy, call, prepare(), direction, count)
            yield cut
            if count > total and not cut.sprung:
                break


def places(total: int, most: int) -> list[int]:
    """Where to cut something of `total` bytes: everywhere, or the first and the last places, and some between."""
    if total < most:
        return list(range(total + 1))
    ends = max(most // 4, 1)
    inner = range(ends, total + 1 - ends)
    between = max(most - 2 * ends, 0)
    chosen = [inner[index * len(inner) // between] for index in range(between)]
    return sorted({*range(ends), *chosen, *range(total + 1 - ends, total + 1)})


def connect(ready: Callable[[], object]) -> None:
    """Call `ready` until it is answered. That a connection was cut, a client may notice only when it uses it."""
    end = time.monotonic() + _NOTICES
    while True:
        try:
            ready()
        except BrokerUnavailable:
            if time.monotonic() > end:
                raise
            time.sleep(0.001)
        else:
            return


def _try(proxy: Proxy, call: Callable[[G], A], given: G, direction: Direction, count: int) -> Cut[G, A]:
    answer: A | None = None
    error: BrokerUnavailable | None = None
    trap = proxy.cut_after(direction, count)
    try:
        answer = call(given)
    except BrokerUnavailable as unavailable:
        error = unavailable
    finally:
        proxy.disarm()
    if trap.sprung:
        trap.settled(_CLOSES)
    return Cut(direction=direction, count=count, sprung=trap.sprung, given=given, answer=answer, error=error)
