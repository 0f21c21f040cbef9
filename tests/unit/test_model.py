"""The model of the contract: what it takes for possible, and what it doesn't."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gotasks.broker import Capability, Envelope, Lease, QueueStats, Record, State, Write
from gotasks.conformance.kit.model import Impossible, Model, Where

CLAIMED = (
    Capability.TIMED_LEASE | Capability.RECORDS | Capability.IDEMPOTENT | Capability.DELAY | Capability.CANCEL
)
A, B = "a", "b"
HELD: frozenset[str] = frozenset()


def envelope(task_id: str = "t", body: bytes = b"first", *, queue: str = A, delay: float = 0.0) -> Envelope:
    return Envelope(id=task_id, queue=queue, body=body, delay=delay)


def lease(
    receipt: str, body: bytes = b"first", *, task_id: str = "t", queue: str = A, deaths: int = 0
) -> Lease:
    return Lease(envelope=envelope(task_id, body, queue=queue), receipt=receipt, deaths=deaths, deadline=0.0)


def write(under: Lease, body: bytes = b"second", seq: int = 1, *, queue: str | None = None) -> Write:
    return Write(lease=under, body=body, seq=seq, queue=queue)


def stats(ready: int = 0, scheduled: int = 0, leased: int = 0) -> QueueStats:
    return QueueStats(ready=ready, scheduled=scheduled, leased=leased)


def record(state: State, body: bytes, queue: str = A) -> Record:
    return Record(id="t", queue=queue, state=state, body=body)


def stored(capabilities: Capability = CLAIMED) -> Model:
    model = Model(capabilities)
    model.enqueue(envelope(), {})
    return model


def taken(capabilities: Capability = CLAIMED, receipt: str = "r1") -> tuple[Model, Lease]:
    model, held = stored(capabilities), lease(receipt)
    model.acquire(A, [held])
    return model, held


def left(capabilities: Capability = CLAIMED) -> tuple[Model, Lease]:
    model, held = taken(capabilities)
    model.abandon(held)
    return model, held


def impossible(call: Callable[[], object], match: str | None = None) -> None:
    with pytest.raises(Impossible, match=match):
        call()


# -- answers that are known ---------------------------------------------------------------------------


def test_a_tasks_life() -> None:
    model, held = taken()
    model.stats(A, stats(leased=1))
    model.extend(held, HELD)
    model.checkpoint(write(held), HELD)
    model.get("t", record(State.LEASED, b"second"))
    model.release(write(held, b"third", 2, queue=B), HELD)
    model.stats(A, stats())
    model.stats(B, stats(ready=1))
    model.browse(B, State.READY, ["t"])
    again = lease("r2", b"third", queue=B)
    model.acquire(B, [again])
    model.ack(write(again, b"last"), HELD, keep_for=9)
    model.get("t", record(State.DONE, b"last", B))
    model.enqueue(envelope(), {"t": "t"})
    model.stats(B, stats())
    assert model.surely(B, Where.DONE) == ["t"]


def test_what_is_ready_must_be_offered_with_its_body_and_no_deaths() -> None:
    impossible(lambda: stored().acquire(A, []), "wasn't offered in a, but the task t was ready")
    stored().acquire(B, [])
    impossible(lambda: stored().acquire(A, [lease("r", b"other")]), "other")
    impossible(lambda: stored().acquire(A, [lease("r", deaths=1)]), "1 deaths")
    impossible(lambda: stored().acquire(B, [lease("r", queue=B)]))
    impossible(lambda: stored().acquire(A, [lease("r"), lease("s")]), "the same task twice")
    impossible(lambda: Model(CLAIMED).acquire(A, [lease("r")]), "nowhere")


def test_a_held_task_is_nobody_elses_and_no_receipt_is_given_twice() -> None:
    model, _ = taken()
    model.acquire(A, [])
    impossible(lambda: model.acquire(A, [lease("r2")]), "held")
    model.enqueue(envelope("u"), {})
    impossible(lambda: model.acquire(A, [lease("r1", task_id="u")]), "given before")


def test_what_is_over_may_come_back_and_must_in_time_with_a_death_more() -> None:
    model, held = left()
    model.acquire(A, [])
    model.stats(A, stats(leased=1))
    impossible(lambda: model.stats(A, stats(ready=1)), "held \\(0, 0, 1\\)")
    impossible(lambda: model.acquire(A, [], waited=True), "wasn't offered")
    impossible(lambda: model.acquire(A, [lease("r2")]), "0 deaths")
    model, held = left()
    model.acquire(A, [lease("r2", deaths=1)])
    model.ack(write(held), frozenset({"r1"}), keep_for=0)
    impossible(lambda: model.ack(write(held, seq=2), HELD, keep_for=0), "held, but")


def test_time_alone_ends_no_receipt_and_a_lost_connection_does() -> None:
    model, held = left()
    model.checkpoint(write(held), HELD)
    model.acquire(A, [lease("r2", b"second", deaths=1)])
    model, held = left()
    model.extend(held, HELD)
    impossible(lambda: model.acquire(A, [lease("r2", deaths=1)]))
    model, held = left(Capability(0))
    model.checkpoint(write(held), frozenset({"r1"}))
    impossible(lambda: model.release(write(held, seq=2), HELD))
    model, _ = left(Capability(0))  # the server may have put it back by itself
    model.stats(A, stats(ready=1))
    model.stats(A, stats(leased=1))
    model.purge(A, 1)
    model.stats(A, stats())


def test_a_lower_seq_is_lost_and_an_equal_one_a_repeat() -> None:
    model, held = taken()
    model.checkpoint(write(held, b"two", 2), HELD)
    model.checkpoint(write(held, b"two", 2), HELD)
    model.checkpoint(write(held, b"one", 1), frozenset({"r1"}))
    impossible(lambda: model.checkpoint(write(held, b"one", 1), HELD))
    impossible(lambda: model.get("t", record(State.LEASED, b"one")))
    model, held = taken()
    model.release(write(held), HELD)
    impossible(lambda: model.release(write(held), HELD))
    impossible(lambda: taken()[0].extend(held, frozenset({"r1"})))


def test_a_checkpoint_that_hands_off_ends_the_lease() -> None:
    model, held = taken(CLAIMED | Capability.HANDOFF)
    model.checkpoint(write(held), HELD)
    impossible(lambda: model.ack(write(held, seq=2), HELD, keep_for=0))
    model.acquire(A, [lease("r2", b"second")])


def test_what_waits_is_purged_and_counted() -> None:
    model, _ = taken()
    model.enqueue(envelope("u", delay=9), {})
    model.stats(A, stats(scheduled=1, leased=1))
    impossible(lambda: model.purge(A, 2), "purge gave 2; a held 1")
    impossible(lambda: model.purge(B, 1))
    model.purge(A, 1)
    model.stats(A, stats(leased=1))
    model.browse(A, State.SCHEDULED, [])
    impossible(lambda: model.browse(A, State.LEASED, []))


def test_by_its_id_a_task_is_had_before_it_is_due() -> None:
    model = Model(CLAIMED)
    model.enqueue(envelope(delay=9), {})
    model.acquire(A, [])
    impossible(lambda: model.acquire(A, [lease("r")]))
    impossible(lambda: model.acquire(A, [], ids=["t"]))
    model.acquire(B, [], ids=["t"])
    impossible(lambda: model.acquire(A, [lease("r")], ids=["u"]), "gave t")
    model.acquire(A, [lease("r")], ids=["t"])


def test_what_is_cancelled_was_live_and_its_receipt_ends() -> None:
    model, held = taken()
    impossible(lambda: model.cancel("t", [], keep_for=0))
    model, held = taken()
    model.cancel("t", ["t"], keep_for=9)
    model.get("t", record(State.CANCELLED, b"first"))
    model.ack(write(held), frozenset({"r1"}), keep_for=0)
    impossible(lambda: model.cancel("t", ["t"], keep_for=0))


def test_without_records_nothing_is_kept() -> None:
    model, held = taken(Capability.TIMED_LEASE)
    model.ack(write(held), HELD, keep_for=9)
    assert model.surely("", Where.NOWHERE) == ["t"]


def test_none_means_that_the_server_cant_say() -> None:
    model, _ = taken()
    model.stats(A, QueueStats(ready=None, scheduled=None, leased=None))
    impossible(lambda: model.stats(A, QueueStats(ready=None, scheduled=None, leased=0)))


# -- outcomes that are unknown ------------------------------------------------------------------------


def test_an_unknown_enqueue_is_stored_wholly_or_not() -> None:
    for seen in (stats(), stats(ready=1)):
        model = Model(CLAIMED)
        model.enqueue(envelope(), None)
        model.stats(A, seen)
    model = Model(CLAIMED)
    model.enqueue(envelope(), None)
    impossible(lambda: model.stats(A, stats(ready=2)))
    model.enqueue(envelope(), {"t": "t"})
    impossible(lambda: model.acquire(A, []))


def test_an_unknown_write_was_carried_out_or_not() -> None:
    for body in (b"first", b"second"):
        model, held = taken()
        model.checkpoint(write(held), None)
        model.get("t", record(State.LEASED, body))
    impossible(lambda: model.get("t", record(State.LEASED, b"third")))
    for lost in (HELD, frozenset({"r1"})):
        model, held = taken()
        model.ack(write(held), None, keep_for=0)
        model.ack(write(held), lost, keep_for=0)
        model.stats(A, stats())


def test_what_an_unknown_acquire_took_is_left_behind_with_a_death() -> None:
    for deaths in (0, 1):
        model = stored()
        model.acquire(A, None)
        model.acquire(A, [])
        model = stored()
        model.acquire(A, None)
        model.acquire(A, [lease("r1", deaths=deaths)])
    impossible(lambda: model.acquire(A, [lease("r2", deaths=3)]))
    model, held = left()
    model.acquire(A, None)
    assert {each.deaths for each in model.states("t")} == {0, 1}
    model.ack(write(held), frozenset({"r1"}), keep_for=0)
    model.acquire(A, [lease("r3", deaths=2)])


def test_what_was_sent_may_arrive_late_until_it_is_settled() -> None:
    model = Model(CLAIMED)
    model.enqueue(envelope(), None)
    model.get("t", None)
    model.acquire(A, [lease("r1")])

    model = Model(CLAIMED)
    model.enqueue(envelope(), None)
    model.settled()
    model.get("t", None)
    impossible(lambda: model.acquire(A, [lease("r1")]), "nowhere")


def test_an_unknown_purge_extend_or_cancel() -> None:
    model = stored()
    model.purge(A, None)
    assert {each.where for each in model.states("t")} == {Where.READY, Where.NOWHERE}
    model, held = left()
    model.extend(held, None)
    model.settled()
    assert {each.where for each in model.states("t")} == {Where.HELD, Where.OVER}
    model, held = taken()
    model.cancel("t", None, keep_for=0)
    assert model.maybe(A, Where.HELD) == ["t"]
    assert model.surely(A, Where.HELD) == []


def test_a_broken_connection_may_have_ended_leases_that_have_no_time() -> None:
    model, held = taken(Capability(0))
    model.disconnect()
    model.checkpoint(write(held), frozenset({"r1"}))
    model.acquire(A, [lease("r2", deaths=1)])
    model, held = taken()
    model.disconnect()
    impossible(lambda: model.checkpoint(write(held), frozenset({"r1"})))


def test_the_sentence_tells_the_tasks_story() -> None:
    model, held = taken()
    model.release(write(held), HELD)
    with pytest.raises(Impossible) as caught:
        model.acquire(A, [])
    for part in ("enqueue → {}", "receipt …r1", "release into its queue of b'second', seq 1", "ready in a"):
        assert part in str(caught.value)
