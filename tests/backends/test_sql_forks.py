"""Forks: none happens while a thread is inside a database's library, however many threads fork."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gotasks_sql.forks import _Gate
from tests.backends.contract import eventually

#: So long what mustn't happen gets the time to happen. Seconds.
_CHANCE = 0.3


def begun(work: Callable[[], object]) -> threading.Event:
    """Begin `work` on a thread; set when it has ended."""
    ended = threading.Event()

    def run() -> None:
        work()
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    return ended


def test_a_call_waits_until_all_forks_are_over() -> None:
    """Two threads that fork at the same time: the end of one fork isn't that of the other."""
    gate = _Gate()
    gate.shut()
    gate.shut()
    inside = begun(gate.enter)
    gate.open()
    assert not inside.wait(_CHANCE)
    gate.open()
    assert inside.wait(20)


def test_a_fork_waits_until_all_calls_have_ended() -> None:
    gate = _Gate()
    gate.enter()
    gate.enter()
    shut = begun(gate.shut)
    eventually(lambda: gate._forks == 1, what="a fork that waits")
    gate.leave()
    assert not shut.is_set()
    gate.leave()
    assert shut.wait(20)
    gate.open()
    assert begun(gate.enter).wait(20)
