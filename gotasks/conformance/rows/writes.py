"""Rows: writes. Acks and releases count once, and only if they come from whoever holds the task."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from gotasks.broker import Capability, Lease, State
from gotasks.conformance.expect import expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import LONG, WRITES, Scene, ids_of

#: Those whose answer names all receipts that are lost; that of `extend` may be incomplete.
EXACT = ("checkpoint", "release", "ack")

RECORDS = Capability.RECORDS


@row("ACK-01")
def an_acked_task_never_comes_back(it: Scene) -> None:
    """Given two held tasks, when one of them is acked and their holder dies, the other one comes back, and the acked
    one never does.
    """
    it.put(2)
    holder, other = it.client(), it.client()
    leases = it.take_all(2, by=holder, lease_for=it.lease)
    acked, left = leases
    lost = holder.ack([it.write(acked)], keep_for=0)
    expect_equal(lost, frozenset(), "receipts lost by an ack under a lease that holds")
    it.abandon(leases, by=holder)
    # When the other one is back, what brings tasks back has been at work.
    back = [*it.take(2, by=other, wait=it.grace), *it.take(2, by=other)]
    expect_equal(ids_of(back), [left.envelope.id], "what comes back after one of two tasks was acked")


@row("ACK-02")
def a_second_ack_changes_nothing(it: Scene) -> None:
    """Given two held tasks, when one of them is acked twice, the second ack is lost and the other task is counted as
    before.
    """
    it.put(2)
    first, second = it.take_all(2)
    acks = [it.broker.ack([it.write(first)], keep_for=0) for _ in range(2)]
    expect_equal(acks, [frozenset(), {first.receipt}], "receipts lost by an ack and by its repeat")
    expect_equal(
        it.broker.stats(it.queue),
        it.at_rest(leased=1),
        "what is counted after one of two tasks was acked twice",
    )
    it.broker.ack([it.write(second)], keep_for=0)


@row("ACK-03")
def a_former_holders_ack_and_release_are_lost(it: Scene) -> None:
    """Given two tasks that somebody else has taken over, when the former holder acks the one and releases the other,
    both writes are lost, and the new holder still holds both and can complete them.
    """
    it.put(2)
    holder, other = it.client(), it.client()
    old = it.take_all(2, by=holder, lease_for=it.lease)
    it.abandon(old, by=holder)
    new = it.take_all(2, by=other, wait=it.grace)
    late = holder if it.claims(Capability.TIMED_LEASE) else other
    lost = late.ack([it.write(old[0])], keep_for=0) | late.release([it.write(old[1])])
    expect_equal(lost, {each.receipt for each in old}, "receipts lost by a former holder's ack and release")
    offered = it.take(2, by=it.client())
    lost = other.ack([it.write(each) for each in new[:1]], keep_for=0)
    lost |= other.ack([it.write(each) for each in new[1:]], keep_for=0)
    expect_equal(
        (ids_of(offered), lost),
        ([], frozenset()),
        "what is offered after a former holder's late writes, and receipts of the new holder that are lost",
    )


@row("ACK-04")
def a_receipt_ends_with_its_lease(it: Scene) -> None:
    """Given tasks that were released, moved into another queue, acked, and (with DELAY) released with a delay, when
    their former receipts are used for any write, it is lost and changes nothing.
    """
    moved_to = it.name("other")
    ends: dict[str, Callable[[Lease], object]] = {
        "release": lambda lease: it.broker.release([it.write(lease, b"ended")]),
        "move": lambda lease: it.broker.release([it.write(lease, b"ended", queue=moved_to)]),
        "ack": lambda lease: it.broker.ack([it.write(lease)], keep_for=LONG if it.claims(RECORDS) else 0),
    }
    if it.claims(Capability.DELAY):
        ends["delay"] = lambda lease: it.broker.release([it.write(lease, delay=it.later)])
    it.put(len(ends) * len(WRITES))
    leases = iter(it.take_all(len(ends) * len(WRITES)))
    wrong, ended = [], []
    for how, end in ends.items():
        for name, send in WRITES.items():
            lease = next(leases)
            end(lease)
            lost = send(it, it.broker, lease, 2)
            if name in EXACT and lost != {lease.receipt}:
                wrong.append(f"{name} after {how}")
            ended.append((how, lease.envelope.id))
    expect_equal(wrong, [], "writes that were taken under a receipt whose lease had ended")
    found = [*it.take_all(len(ended)), *it.take_all(len(ended), queue=moved_to)]
    queues = {"release": it.queue, "move": moved_to}
    expect_equal(
        sorted((each.envelope.id, each.envelope.queue, each.envelope.body, each.deaths) for each in found),
        sorted((each, queues[how], b"ended", 0) for how, each in ended if how in queues),
        "id, queue, body and deaths of what is offered after former holders' writes",
    )


@row("ACK-06", needs=Capability.TIMED_LEASE)
def an_ack_at_the_end_of_a_lease_counts_or_is_lost(it: Scene) -> None:
    """Given leases that end one shortly after the other, when each is acked at its end while others acquire, each task
    is either acked, or its ack is lost and somebody else has the task: never both, and never neither.
    """
    count = it.times(quick=60, full=600)
    it.put(count)
    holder, other = it.client(), it.client()
    leases = [
        it.take_one(by=holder, lease_for=it.lease + count / 200 - number / 250) for number in range(count)
    ]
    acked: list[str] = []
    taken: list[Lease] = []

    def ack_at_the_end() -> None:
        for lease in reversed(leases):  # those that were taken last end first
            end = lease.deadline + it.random.uniform(-0.003, 0.002)
            while time.monotonic() < end:
                time.sleep(0.0005)
            if not holder.ack([it.write(lease)], keep_for=0):
                acked.append(lease.envelope.id)

    def take_over() -> None:
        end = max(lease.deadline for lease in leases) + it.grace
        while len(acked) + len(taken) < count and time.monotonic() < end:
            taken.extend(it.take(2, by=other, wait=0.01))
            time.sleep(it.random.uniform(0, 0.003))  # so that some acks come late, and first all the same

    it.in_threads(ack_at_the_end, take_over, timeout=it.lease + count / 100 + 20)
    taken += it.take_all(count, by=other)
    both = set(acked) & set(ids_of(taken))
    neither = {lease.envelope.id for lease in leases} - set(acked) - set(ids_of(taken))
    it.figures["acked"], it.figures["taken over"] = len(acked), len(taken)
    expect_equal(
        (len(both), len(neither)), (0, 0), "tasks that were both acked and given away, and neither of it"
    )


@row("ACK-08")
def a_late_burial_leaves_no_copy(it: Scene) -> None:
    """Given a task that somebody else has taken over and completed, when its former holder moves it into the fatal
    queue, that is lost, and the task is in neither queue.
    """
    it.put()
    holder, other = it.client(), it.client()
    lease = it.take_one(by=holder, lease_for=it.lease)
    it.abandon([lease], by=holder)
    other.ack([it.write(it.take_one(by=other, wait=it.grace))], keep_for=0)
    late = holder if it.claims(Capability.TIMED_LEASE) else other
    lost = late.release([it.write(lease, queue=it.fatal)])
    expect_equal(lost, {lease.receipt}, "receipts lost by a release of a task that was taken over and acked")
    copies = ids_of([*it.take(by=other, queue=it.fatal), *it.take(by=other)])
    expect_equal(
        copies, [], "what is in the fatal queue and the queue, after a late release of a task that has ended"
    )


@row("ACK-09", needs=RECORDS)
def an_ack_keeps_the_final_body_or_nothing(it: Scene) -> None:
    """Given two held tasks, when they are acked with a final body, `get` gives that body and the state done for the one
    that was to be kept, and nothing for the one whose `keep_for` was 0.
    """
    it.put(2)
    kept, dropped = it.take_all(2)
    it.broker.ack([it.write(kept, b"final")], keep_for=LONG)
    it.broker.ack([it.write(dropped, b"final")], keep_for=0)
    records = it.broker.get([kept.envelope.id, dropped.envelope.id])
    expect_equal(
        {each: (record.state, record.body) for each, record in records.items()},
        {kept.envelope.id: (State.DONE, b"final")},
        "what is known of two tasks, of which one was kept",
    )


@row("ACK-10")
def a_repeated_write_harms_nothing(it: Scene) -> None:
    """Given one held task for each kind of write, when each write is sent twice, the repeat of an extend or of an
    in-place checkpoint is held, and that of a write that ended the lease is lost. There is one copy of what was put
    back or moved, and a further repeat takes nothing from whoever holds it now.
    """
    moved_to = it.name("other")

    def send(name: str) -> bool:
        if name == "move":
            return bool(holder.release([it.write(leases[name], queue=moved_to)]))
        return bool(WRITES[name](it, holder, leases[name], 1))

    names = [*WRITES, "move"]
    it.put(len(names))
    holder, other = it.client(), it.client()
    leases = dict(zip(names, it.take_all(len(names), by=holder), strict=True))
    for name in names:
        send(name)
    ended = {"release", "move", "ack"} | ({"checkpoint"} if it.claims(Capability.HANDOFF) else set())
    expect_equal({name for name in names if send(name)}, ended, "writes of which a repeat is lost")
    back = [*it.take_all(len(names), by=other), *it.take_all(len(names), by=other, queue=moved_to)]
    for name in ended:
        send(name)
    copies = [*it.take(by=other), *it.take(by=other, queue=moved_to)]
    lost = {other.ack([it.write(lease)], keep_for=0) for lease in back}
    expect_equal(
        (sorted(ids_of([*back, *copies])), lost),
        (sorted(leases[name].envelope.id for name in ended - {"ack"}), {frozenset()}),
        "what is offered after writes and their repeats, and receipts of the one who has taken it that are lost",
    )


@row("ACK-11")
def a_forged_receipt_opens_nothing(it: Scene) -> None:
    """Given held and ready tasks, when a write comes with a receipt that was never given, with that of another task, or
    with an empty one, it is lost and changes nothing, whichever write it is.
    """
    it.put(3)
    one, another, ready = it.take_all(3)
    it.broker.release([it.write(ready)])
    replace = msgspec.structs.replace
    forged = [
        replace(one, receipt=f"{one.receipt}1"),
        replace(one, receipt=another.receipt),
        replace(one, receipt=""),
        replace(ready, receipt=""),
    ]
    wrong = []
    for lease in forged:
        for name, send in WRITES.items():
            lost = send(it, it.broker, lease, 1)
            if name in EXACT and lost != {lease.receipt}:
                wrong.append(name)
    expect_equal(wrong, [], "writes that were taken under a forged receipt")
    offered = ids_of(it.take_all(3))
    lost = it.broker.ack([it.write(one)], keep_for=0) | it.broker.ack([it.write(another)], keep_for=0)
    expect_equal(
        (offered, lost),
        ([ready.envelope.id], frozenset()),
        "what is offered after forged writes, and receipts of the true holder that are lost",
    )
