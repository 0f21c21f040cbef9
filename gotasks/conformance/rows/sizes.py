"""Rows: sizes. What a call does to one task it does to as many as it takes, and to bodies of any bytes and length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gotasks.broker import Capability, Lease, Record, State
from gotasks.conformance.expect import difference, expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.rows.lapses import let_go
from gotasks.conformance.rows.payloads import STRANGE
from gotasks.conformance.scene import LONG, Scene, ids_of

#: More than a column of 64 KiB holds, and no text. Bytes.
LARGE = bytes(range(256)) * 800


@row("BIG-01")
def a_full_batch_is_written_wholly(it: Scene) -> None:
    """Given as many held tasks as `limits.max_batch` allows, when all are checkpointed in one call, and extended in
    one, each has its own new body and comes back when the extend says. When all are released in one call, each is back
    with its new body, and when all are acked in one, each has ended, its receipt too.
    """
    size = min(it.limits.max_batch, it.times(quick=1000, full=10_000))
    holder, other = it.client(), it.client()
    it.put(size)
    leases = it.take_all(size, by=holder)
    bodies = _own_bodies(leases, "checkpointed")
    lost = holder.checkpoint([it.write(each, bodies[each.envelope.id]) for each in leases])
    if not it.claims(Capability.HANDOFF):
        let_go(it, leases, holder)
    leases = it.take_all(size, by=other, wait=it.lease + it.grace)
    expect_equal(
        (len(lost), _right(leases, bodies)),
        (0, size),
        f"receipts lost by a checkpoint of {size}, and tasks that came back with the right body when it was over",
    )
    bodies = _own_bodies(leases, "released")
    lost = other.release([it.write(each, bodies[each.envelope.id]) for each in leases])
    counted = it.broker.stats(it.queue)
    leases = it.take_all(size, by=other)
    expect_equal(
        (len(lost), counted, _right(leases, bodies)),
        (0, it.at_rest(ready=len(bodies)), len(bodies)),
        f"receipts lost by a release of {size}, what is counted after it, and tasks that came back with their body",
    )
    lost = other.ack([it.write(each) for each in leases], keep_for=0)
    again = [
        other.ack([it.write(each)], keep_for=0) for each in (leases[0], leases[len(leases) // 2], leases[-1])
    ]
    expect_equal(
        (len(lost), it.broker.stats(it.queue), all(again)),
        (0, it.at_rest(), True),
        f"receipts lost by an ack of {size}, what is counted after it, and whether repeats of some of it are lost",
    )


@row("BIG-02", needs=Capability.RECORDS)
def get_finds_many_at_once(it: Scene) -> None:
    """Given some hundred tasks, when `get` is called with all their ids, it gives the records of all."""
    sent = it.put(_some_hundred(it))
    differs = difference(sorted(it.broker.get(sent)), sorted(sent))
    expect(not differs, f"ids of the records that get gives of {len(sent)}: {differs}")


@row("BIG-03", needs=Capability.CANCEL)
def cancel_ends_many_at_once(it: Scene) -> None:
    """Given some hundred tasks, when `cancel` is called with all their ids, it returns all of them, and none of the
    tasks is there any more.
    """
    sent = it.put(_some_hundred(it))
    ended = it.broker.cancel(sent, keep_for=0)
    expect_equal(len(set(ended)), len(sent), "how many ids cancel returns of some hundred")
    expect_equal(len(it.drain()), 0, f"tasks that come out after {len(sent)} of {len(sent)} were cancelled")


@row("BIG-04", needs=Capability.BROWSE)
def acquire_with_ids_takes_many_at_once(it: Scene) -> None:
    """Given some hundred tasks, when `acquire` names all but one of them, it gives these, and the one is left."""
    first, *sent = it.put(_some_hundred(it))
    if not sent:
        return  # one call takes no more than one id
    differs = difference(sorted(ids_of(it.take(len(sent), ids=sent))), sorted(sent))
    expect(not differs, f"ids of what acquire gives by {len(sent)} ids: {differs}")
    expect_equal(ids_of(it.drain()), [first], "what is left after all others were acquired by their ids")


@row("BIG-05")
def a_large_body_outlives_a_checkpoint_and_a_move(it: Scene) -> None:
    """Given two held tasks, when one is checkpointed and the other moved into another queue with a body of more than
    64 KiB (as far as `limits.max_payload` allows), the next holders get every byte of it.
    """
    body = LARGE[: it.limits.max_payload]
    holder, other = it.client(), it.client()
    it.put(2)
    checkpointed, moved = it.take_all(2, by=holder)
    holder.release([it.write(moved, body, queue=it.fatal)])
    holder.checkpoint([it.write(checkpointed, body)])
    if not it.claims(Capability.HANDOFF):
        let_go(it, [checkpointed], holder)
    found = it.take_one(by=other, wait=it.lease + it.grace), it.take_one(by=other, queue=it.fatal)
    expect_equal(
        [(len(each.envelope.body), each.envelope.body == body) for each in found],
        [(len(body), True)] * 2,
        f"how many bytes a checkpoint and a move left of {len(body)}, and whether they are the same",
    )


@row("BIG-06", needs=Capability.RECORDS)
def a_record_has_the_very_bytes_of_the_body(it: Scene) -> None:
    """Given bodies of any bytes (none at all, NUL, what is no valid UTF-8, more than 64 KiB), when tasks are enqueued
    with them and acked with them, `get` gives the very same bytes, before and after.
    """
    for body in _bodies(it):
        (sent,) = it.put(body=body)
        before = _bodies_of(it.broker.get([sent]).values())
        expect(before == [body], f"get gives other bytes than were enqueued: {_seen(before, body)}")
        final = body[::-1]
        it.broker.ack([it.write(it.take_one(), final)], keep_for=LONG)
        after = _bodies_of(it.broker.get([sent]).values())
        expect(after == [final], f"get gives other bytes than were acked: {_seen(after, final)}")


@row("BIG-07", needs=Capability.BROWSE)
def browse_shows_the_very_bytes_of_the_body(it: Scene) -> None:
    """Given bodies of any bytes, as in the row about records, when tasks are enqueued with them, `browse` gives the
    very same bytes.
    """
    for body in _bodies(it):
        it.put(body=body)
        shown = _bodies_of(it.broker.browse(it.queue, state=State.READY, limit=2))
        expect(shown == [body], f"browse gives other bytes than were enqueued: {_seen(shown, body)}")
        it.broker.ack([it.write(it.take_one())], keep_for=0)


# -- how it is done -------------------------------------------------------------------------------------


def _some_hundred(it: Scene) -> int:
    return min(it.limits.max_batch, it.times(quick=600, full=5000))


def _own_bodies(leases: Sequence[Lease], word: str) -> dict[str, bytes]:
    return {each.envelope.id: f"{word} {number}".encode() for number, each in enumerate(leases)}


def _right(leases: Sequence[Lease], bodies: Mapping[str, bytes]) -> int:
    """How many tasks have the body that is expected."""
    return len({each.envelope.id for each in leases if bodies.get(each.envelope.id) == each.envelope.body})


def _bodies(it: Scene) -> list[bytes]:
    most = it.limits.max_payload
    return [each[:most] for each in (*STRANGE, LARGE)]


def _bodies_of(records: Iterable[Record]) -> list[bytes]:
    return [each.body for each in records]


def _seen(actual: Sequence[bytes], expected: bytes) -> str:
    if len(actual) != 1:
        return f"there are {len(actual)} records of the task"
    (body,) = actual
    return f"{len(body)} bytes, {body[:40]!r}, not {len(expected)} bytes, {expected[:40]!r}"
