"""View: what can be leased, in which order, and what a removal leaves of it."""

from __future__ import annotations

from typing import Any

from gotasks.broker import State
from gotasks_nats.clock import ServerClock
from gotasks_nats.entry import Entry, decoded
from gotasks_nats.view import View, task

S = 1_000_000_000


def put(view: View, id: str, seq: int, stored: int = 0, **fields: Any) -> None:
    view.put(task(id, seq, stored or seq, Entry(queue="q", **fields)))
    view.reached(seq)


def ids(view: View, now: int, limit: int = 9) -> list[str]:
    return [each.id for each in view.take("q", now, limit)]


def test_priority_then_what_was_left_then_front_then_back() -> None:
    view = View()
    put(view, "plain", 1)
    put(view, "high", 2, priority=5)
    put(view, "left", 3, state="leased", lasts=1.0)
    put(view, "front", 4, front=True)
    put(view, "held", 5, state="leased", lasts=9.0)
    put(view, "late", 6, state="scheduled", lasts=9.0)
    put(view, "due", 7, state="scheduled", lasts=1.0)

    assert ids(view, 2 * S) == ["high", "left", "front", "plain", "due"]
    assert view.next_change("q") == 5 + 9 * S


def test_what_was_taken_is_nobody_elses_until_it_is_put_back() -> None:
    view = View()
    put(view, "one", 1)
    (taken,) = view.take("q", S, 9)
    assert ids(view, S) == []
    view.back([taken])
    assert ids(view, S) == ["one"]


def test_what_changed_meanwhile_is_not_put_back_twice() -> None:
    view = View()
    put(view, "one", 1)
    (taken,) = view.take("q", S, 9)
    put(view, "one", 2)
    view.back([taken])
    assert ids(view, S) == ["one"]


def test_a_removal_that_is_heard_of_before_the_message_itself() -> None:
    view = View()
    view.gone("one", 3)
    put(view, "one", 2)
    assert ids(view, S) == []
    put(view, "other", 4)
    put(view, "one", 5)
    assert ids(view, S) == ["other", "one"]


def test_a_removal_that_was_overtaken_removes_nothing() -> None:
    view = View()
    put(view, "one", 5)
    view.gone("one", 3)
    assert ids(view, S) == ["one"]


def test_counts_and_records() -> None:
    view = View()
    put(view, "due", 1, state="scheduled", lasts=1.0)
    put(view, "late", 2, state="scheduled", lasts=9.0)
    put(view, "left", 3, state="leased", lasts=1.0)
    put(view, "done", 4, state="done", lasts=1.0)
    assert view.count("q", 2 * S) == (1, 1, 1)
    assert [each.id for each in view.found("q", State.READY, 2 * S)] == ["due"]
    assert [each.id for each in view.over(2 * S)] == ["done"]
    assert view.over(2 * S) == []


def test_a_message_without_a_queue_is_no_task() -> None:
    assert decoded(None) is None
    assert decoded({"Gotasks-Task": "{}"}) is None


def test_a_message_that_can_not_be_read_is_ready() -> None:
    assert decoded({"Gotasks-Queue": "q", "Gotasks-Task": "{what?"}) == Entry(queue="q")


def test_what_is_encoded_is_decoded() -> None:
    entry = Entry(queue="q", state="leased", receipt="r", seq=3, deaths=1, lasts=1.5, priority=9)
    assert decoded(entry.headers()) == entry


def test_the_clock_is_never_ahead_of_what_was_sent() -> None:
    clock = ServerClock()
    assert clock.now() == 0
    clock.arrived(10**18)
    assert clock.now() >= 10**18
    clock.sent(10**17, at=1e9)  # its clock was set back
    assert clock.now() < 10**18


def test_nothing_is_left_of_a_queue_that_is_empty() -> None:
    view = View()
    put(view, "one", 1)
    (taken,) = view.take("q", S, 9)
    view.gone("one", 1)
    view.back([taken])
    assert dict(view._queues) == {}
