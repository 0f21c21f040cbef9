"""Rows: clocks. Leases and delays are the server's to measure: no client's wall clock and no time zone matters."""

from __future__ import annotations

import time
from collections.abc import Callable

from gotasks.broker import Broker, Capability
from gotasks.conformance.expect import expect
from gotasks.conformance.kit.clocks import shift
from gotasks.conformance.kit.elsewhere import Elsewhere
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene

_HOUR = 3600.0

#: Far from UTC on either side, one with summer time; spelled so that no database of time zones is needed.
_ZONES = {"New York": "EST5EDT,M3.2.0,M11.1.0", "Kolkata": "IST-5:30"}

#: What the clocks of two machines, and rounding, may differ by. Seconds.
_ROUNDING = 0.02


@row("CLK-01", processes=True)
def a_clients_clock_may_be_an_hour_off(it: Scene) -> None:
    """Given a client whose wall clock is an hour ahead, and one whose is an hour behind, when they take leases and put
    off tasks, other clients find these when the time is over, no earlier and no later; and theirs are found likewise.
    """
    there = it.elsewhere()
    problems: list[Callable[[], list[str]]] = []
    for seconds in (_HOUR, -_HOUR):
        there.call(shift, seconds)
        problems.append(_measure(it, there, f"a client whose clock is {seconds:+g} s off"))
    found = [sentence for each in problems for sentence in each()]
    expect(not found, "; ".join(found))


@row("CLK-02", needs=Capability.TIMED_LEASE)
def a_jump_of_the_wall_clock_changes_no_lease(it: Scene) -> None:
    """Given a client that holds a task, when its wall clock jumps an hour back, or an hour ahead, the task is offered
    again when the lease's own time is over, no earlier and no later.
    """
    there = it.elsewhere()
    length = 1.5 * it.lease
    found = []
    now = 0.0
    for jump in (-_HOUR, _HOUR):
        it.put(by=there)
        began = time.monotonic()
        it.take_one(by=there, lease_for=length)
        now += jump
        there.call(shift, now)
        found += _offered(
            it, there, it.queue, f"a lease amid a jump by {jump:+g} s", began=began, seconds=length
        )
        it.drain(by=there)
    expect(not found, "; ".join(found))


@row("CLK-03", processes=True)
def a_clients_time_zone_changes_nothing(it: Scene) -> None:
    """Given clients in other time zones than UTC, one with summer time, when they take leases and put off tasks, other
    clients find these when the time is over, no earlier and no later; and theirs are found likewise.
    """
    problems = [
        _measure(it, it.elsewhere(env={"TZ": zone}), f"a client in {name}") for name, zone in _ZONES.items()
    ]
    found = [sentence for each in problems for sentence in each()]
    expect(not found, "; ".join(found))


def _measure(it: Scene, there: Elsewhere, who: str) -> Callable[[], list[str]]:
    """Have `there` hold a task and put one off. Call what is returned to wait for both; it gives what is wrong."""
    held, delayed, ours = it.name("held"), it.name("delayed"), it.name("ours")
    long, short = 3 * it.lease, 2 * it.lease
    problems: list[str] = []
    it.put(queue=ours)
    it.take_one(queue=ours)
    it.put(queue=held)
    began = time.monotonic()
    it.take_one(by=there, queue=held, lease_for=short)
    if it.claims(Capability.DELAY):
        it.put(queue=delayed, by=there, delay=long)
        it.put(queue=ours, delay=min(_HOUR / 2, it.limits.max_delay or _HOUR))
    if it.take(by=there, queue=ours):
        problems.append(f"{who} was given a task that another one holds, or that isn't due for long")

    def wait() -> list[str]:
        if it.claims(Capability.TIMED_LEASE):
            problems.extend(
                _offered(it, it.broker, held, f"a task held by {who}", began=began, seconds=short)
            )
        if it.claims(Capability.DELAY):
            problems.extend(
                _offered(it, it.broker, delayed, f"a task put off by {who}", began=began, seconds=long)
            )
        return problems

    return wait


def _offered(it: Scene, by: Broker, queue: str, what: str, *, began: float, seconds: float) -> list[str]:
    """Wait for the one task of `queue`; what is wrong if it isn't offered `seconds` after `began`."""
    left = max(0.0, began + seconds - time.monotonic()) + it.grace
    leases = it.take(by=by, queue=queue, wait=left)
    after = time.monotonic() - began
    if not leases:
        return [f"{what} for {seconds:g} s wasn't offered within {after:.2f} s"]
    if after < seconds - _ROUNDING:
        return [f"{what} for {seconds:g} s was offered after {after:.2f} s"]
    return []
