"""Rows: batches. One call with many items does to each what a call with one does."""

from __future__ import annotations

from gotasks.broker import Broker, Capability, Lease
from gotasks.conformance.adapter import NotApplicable
from gotasks.conformance.expect import difference, expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene, ids_of


@row("BAT-02")
def a_batch_is_stored_wholly(it: Scene) -> None:
    """Given batches as large as `limits.max_batch` allows, when they are enqueued and acquired, every task comes out
    once, in order where `limits.fifo` says so. An empty batch is answered with nothing, whatever the method.
    """
    broker = it.broker
    for name, answer in (
        ("enqueue", broker.enqueue([])),
        ("extend", broker.extend([], lease_for=1.0)),
        ("checkpoint", broker.checkpoint([])),
        ("ack", broker.ack([], keep_for=0)),
        ("release", broker.release([])),
    ):
        expect_equal(len(answer), 0, f"the number of answers to an empty {name}")
    size = min(it.limits.max_batch, it.times(quick=1000, full=10_000))
    total = size + min(size, 7) if it.quick else 10_000
    sent = [each for start in range(0, total, size) for each in it.put(min(size, total - start))]
    received = ids_of(it.drain())
    if not it.limits.fifo:
        sent, received = sorted(sent), sorted(received)
    differs = difference(received, sent)
    expect(
        not differs, f"of {total} tasks that were enqueued {size} at a time, not the same come out: {differs}"
    )


@row("BAT-03")
def one_of_a_batch_is_settled_alone(it: Scene) -> None:
    """Given five tasks that were acquired together, when the third is acked, the other four are held as before: their
    receipts hold, and nobody else gets them.
    """
    holder = it.client()
    it.put(5)
    leases = it.take(min(5, it.limits.max_batch), by=holder)
    leases += [it.take_one(by=holder) for _ in range(5 - len(leases))]
    holder.ack([it.write(leases[2])], keep_for=0)
    offered = it.take_all(5, by=it.client())
    lost = [one.envelope.id for one in leases[:2] + leases[3:] if holder.ack([it.write(one)], keep_for=0)]
    what = f"{len(offered)} were offered to somebody else, and {len(lost)} acks of them lost"
    expect(not offered and not lost, f"of four tasks whose batch had one more, which was acked, {what}")


@row("BAT-04")
def a_lost_item_does_no_harm_to_the_others_of_its_batch(it: Scene) -> None:
    """Given three held tasks, the second of which has been settled before, when all three are written in one batch,
    the answer is exactly the second one's receipt, and the other two are written.
    """
    if it.limits.max_batch < 3:
        raise NotApplicable(f"limits.max_batch is {it.limits.max_batch}")
    for name in ("checkpoint", "release", "ack"):
        queue = it.name(name)
        sent = it.put(3, queue=queue)
        leases = [it.take_one(queue=queue) for _ in range(3)]
        it.broker.ack([it.write(leases[1])], keep_for=0)
        lost = _write(it, it.broker, name, leases)
        expect_equal(
            lost, {leases[1].receipt}, f"lost receipts of a {name} of three, the second of which is over"
        )
        if name == "checkpoint" and not it.claims(Capability.HANDOFF):
            it.broker.release([it.write(lease, seq=3) for lease in (leases[0], leases[2])])
        left = [] if name == "ack" else [each for each in sent if each != leases[1].envelope.id]
        offered = ids_of(it.take_all(3, queue=queue))
        expect_equal(sorted(offered), sorted(left), f"tasks left after that {name}")


def _write(it: Scene, broker: Broker, name: str, leases: list[Lease]) -> frozenset[str]:
    writes = [it.write(lease, seq=2) for lease in leases]
    if name == "ack":
        return broker.ack(writes, keep_for=0)
    return broker.release(writes) if name == "release" else broker.checkpoint(writes)
