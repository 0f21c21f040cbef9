"""Rows: cancel. It ends a task wherever it is, once, and its holder is told."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from gotasks.broker import Capability, State
from gotasks.conformance.expect import expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.rows.writes import EXACT
from gotasks.conformance.scene import LONG, WRITES, Scene

RECORDED = Capability.CANCEL | Capability.RECORDS


@row("CAN-01", needs=Capability.CANCEL)
def a_cancelled_task_is_never_offered_again(it: Scene) -> None:
    """Given tasks that are ready, scheduled, held, and left by a holder who died, when they are cancelled, the
    ids of all are returned, no queue counts them, and nobody gets them.
    """
    (ready,), (held,), holder = it.put(), it.put(queue=it.name("held")), it.client()
    kept = it.put(queue=it.name("kept"))
    ids = [ready, held]
    it.take_one(queue=it.name("held"))
    if it.claims(Capability.DELAY):
        ids += it.put(delay=it.lease)
    (left,) = it.put(queue=it.name("left"))
    it.abandon([it.take_one(by=holder, queue=it.name("left"), lease_for=it.lease)], by=holder)
    ids.append(left)
    ended = it.broker.cancel(ids, keep_for=0)
    expect_equal(sorted(ended), sorted(ids), "ids that cancel says it ended")
    queues = [it.queue, *map(it.name, ("held", "left", "kept"))]
    if it.claims(Capability.DELAY):
        it.take(wait=1.5 * it.lease)  # the delay is over by then
    came = [lease.envelope.id for queue in queues for lease in it.take(9, queue=queue)]
    counts = [it.broker.stats(queue) for queue in queues[:-1]]
    right = kept, [it.at_rest()] * 3
    expect_equal(
        (came, counts), right, "ids that come out, and stats of queues of which all tasks were cancelled"
    )


@row("CAN-02", needs=Capability.CANCEL)
def the_holder_of_a_cancelled_task_is_told_so(it: Scene) -> None:
    """Given a held task, when it is cancelled, its receipt holds no longer: an extend, a checkpoint, a release
    and an ack under it are lost (the answer to an extend may leave that out) and bring nothing back.
    """
    for name, write in WRITES.items():
        (task_id,) = it.put()
        lease = it.take_one()
        it.broker.cancel([task_id], keep_for=0)
        lost = write(it, it.broker, lease, 1)
        if name in EXACT:
            expect_equal(lost, {lease.receipt}, f"receipts lost by {name} after a cancel")
        expect_equal(len(it.take()), 0, f"tasks that come out after a cancel and {name}")


@row("CAN-03", needs=RECORDED)
def the_record_of_a_cancelled_task_says_so(it: Scene) -> None:
    """Given a task that is cancelled with `keep_for`, its record is cancelled and holds the body that was
    written last, for so long; with 0 there is none. What its holder writes afterwards changes nothing.
    """
    (kept,) = it.put(body=b"old")
    lease = it.take_one()
    it.broker.release([it.write(lease, b"last")])
    lease = it.take_one()
    it.broker.cancel([kept], keep_for=LONG)
    it.broker.ack([it.write(lease, b"late")], keep_for=LONG)
    (gone,), (short,) = it.put(), it.put()
    it.broker.cancel([gone], keep_for=0)
    it.broker.cancel([short], keep_for=it.lease)
    seen = {each.id: (each.state, each.body) for each in it.broker.get([kept, gone]).values()}
    expect_equal(
        seen, {kept: (State.CANCELLED, b"last")}, "records of a task cancelled with keep_for and one without"
    )
    it.eventually(
        lambda: not it.broker.get([short]), "the end of a cancelled task's record", within=it.lease + 5.0
    )


@row("CAN-04", needs=Capability.CANCEL)
def cancel_ends_a_task_once_and_leaves_what_has_ended(it: Scene) -> None:
    """Given tasks that are cancelled, done or unknown, when they are cancelled, `cancel` returns none of their
    ids, and the record of the done one stays as it is.
    """
    keep_for = LONG if it.claims(Capability.RECORDS) else 0.0
    (cancelled,) = it.put()
    it.broker.cancel([cancelled], keep_for=keep_for)
    (done,) = it.put()
    it.broker.ack([it.write(it.take_one(), b"final")], keep_for=keep_for)
    ended = it.broker.cancel([cancelled, done, it.envelope().id], keep_for=keep_for)
    expect_equal(sorted(ended), [], "ids that cancel says it ended, of tasks that had ended or never were")
    if keep_for:
        record = it.broker.get([done]).get(done)
        expect_equal(record and record.state, State.DONE, "the state of a done task after a cancel")


@row("CAN-05", needs=Capability.CANCEL)
def of_a_cancel_and_an_ack_one_wins(it: Scene) -> None:
    """Given a held task, when it is cancelled while its holder acks it, then either the cancel returns its id
    and the ack is lost, or it doesn't and the ack isn't.
    """
    client = it.client()
    rounds = it.times(quick=50, full=1000)
    both = neither = 0
    for number in range(rounds):
        (task_id,) = it.put()
        writes = [it.write(it.take_one())]
        calls: list[Callable[[], Collection[str]]] = [
            partial(client.cancel, [task_id], keep_for=0),
            partial(it.broker.ack, writes, keep_for=0),
        ]
        turn = 1 if number % 2 else -1  # the last one to come to the start is the first to leave it
        cancelled, lost = it.in_threads(*calls[::turn])[::turn]
        both += bool(cancelled) and not lost
        neither += not cancelled and bool(lost)
    expect_equal(both, 0, f"tasks of {rounds} that were cancelled and acked")
    expect_equal(neither, 0, f"tasks of {rounds} that neither the cancel nor the ack says it ended")
