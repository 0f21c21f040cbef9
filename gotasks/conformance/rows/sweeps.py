"""Rows: sweeps. A call is cut after each byte of its requests and of its replies: it took effect wholly or not at all.

Nobody can tell from the error which of the two it was. So the rows look at what is offered afterwards, from a
connection of their own, and repeat the call unchanged, as a worker does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from gotasks.broker import Capability, Envelope, Lease
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.kit.bench import NEW, OLD, Bench
from gotasks.conformance.kit.sweep import connect
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene


@row("CKP-02", timeout=180)
def a_checkpoint_that_is_cut_has_written_its_whole_body_or_nothing(it: Scene) -> None:
    """Given a held task, when the connection is cut anywhere in a `checkpoint` and the holder then dies, the next
    `acquire` returns the old body or the new one, never a mix; and the new one if the call had returned.
    """
    bench = Bench(it)
    allowed: dict[str, set[bytes]] = {}
    for cut in bench.sweep(lambda lease: bench.through.checkpoint([it.write(lease, NEW)]), bench.hold):
        task = cut.given.envelope.id
        bench.where[task] = str(cut)
        allowed[task] = {NEW} if cut.answer == frozenset() else {OLD, NEW}
    back = bench.come_back(allowed)
    wrong = {task: back[task] for task, bodies in allowed.items() if not bodies.issuperset(back[task])}
    expect(not wrong, f"bodies that a checkpoint, cut or answered, shouldn't leave: {bench.say(wrong)}")


@row("CKP-03", timeout=180)
def a_checkpoint_that_is_cut_and_repeated_leaves_one_task(it: Scene) -> None:
    """Given a held task, when the connection is cut anywhere in a `checkpoint` that is then sent again unchanged, the
    repeat isn't `lost` (unless the first one has ended the lease), and there is one copy of the task, with the new
    body.
    """
    bench = Bench(it)
    allowed: dict[str, list[list[bytes]]] = {}

    def checkpoint(lease: Lease) -> frozenset[str]:
        return bench.through.checkpoint([it.write(lease, NEW)])

    for cut in bench.sweep(checkpoint, bench.hold):
        lost = bench.repeat(cut, checkpoint)
        if it.claims(Capability.TIMED_LEASE) and not it.claims(Capability.HANDOFF):
            expect_equal(
                lost, frozenset(), f"lost by the repeat of a checkpoint that was {cut}, nobody else came"
            )
        done = not lost or it.claims(Capability.TIMED_LEASE)
        task = cut.given.envelope.id
        bench.where[task] = str(cut)
        allowed[task] = [[NEW]] if done else [[NEW], [OLD]]
    back = bench.come_back(allowed)
    wrong = {task: back[task] for task, copies in allowed.items() if back[task] not in copies}
    expect(not wrong, f"bodies after a cut and a repeat, it should be one, and new: {bench.say(wrong)}")


@row("ACK-07", timeout=180)
def an_ack_a_release_or_an_extend_that_is_cut_can_be_repeated(it: Scene) -> None:
    """Given a held task, when the connection is cut anywhere in an `ack`, a `release` or an `extend` that is then sent
    again unchanged, it has happened once: an acked task is never offered again, a released one is offered once with the
    new body, an extended one once, with the body that it had, when its lease is over.
    """
    bench = Bench(it)
    calls: dict[str, Callable[[Lease], frozenset[str]]] = {
        "ack": lambda lease: bench.through.ack([it.write(lease, NEW)], keep_for=0),
        "release": lambda lease: bench.through.release([it.write(lease, NEW)]),
        "extend": lambda lease: bench.through.extend([lease], lease_for=it.lease),
    }
    copies: dict[str, list[bytes]] = {"ack": [], "release": [NEW], "extend": [OLD]}
    allowed: dict[str, list[list[bytes]]] = {}
    for name, call in calls.items():
        for cut in bench.sweep(call, bench.hold):
            lost = bench.repeat(cut, call)
            if name == "extend" and it.claims(Capability.TIMED_LEASE):
                expect_equal(
                    lost, frozenset(), f"lost by the repeat of an extend that was {cut}, nobody else came"
                )
            done = not lost or it.claims(Capability.TIMED_LEASE)
            task = cut.given.envelope.id
            bench.where[task] = f"{name} {cut}"
            allowed[task] = [copies[name]] if done else [copies[name], [OLD]]
    # Those that are acked aren't waited for.
    back = bench.come_back({task for task, each in allowed.items() if [] not in each})
    wrong = {task: back.get(task, []) for task, each in allowed.items() if back.get(task, []) not in each}
    expect(
        not wrong,
        "bodies that were offered after a cut and a repeat, none should be after an ack, one new one after a release, "
        f"one old one after an extend: {bench.say(wrong)}",
    )


@row("FTL-02", timeout=180)
def a_move_that_is_cut_leaves_the_task_in_one_place(it: Scene) -> None:
    """Given a held task, when the connection is cut anywhere in a `release` to another queue that is then sent again
    unchanged, the task is in that queue and nowhere else. Without ATOMIC_MOVE one copy more is forgiven, none never.
    """
    bench = Bench(it)
    there: dict[str, list[bytes]] = {}
    done: dict[str, bool] = {}

    def bury(lease: Lease) -> frozenset[str]:
        return bench.through.release([it.write(lease, NEW, queue=it.fatal)])

    for cut in bench.sweep(bury, bench.hold):
        task = cut.given.envelope.id
        bench.where[task] = str(cut)
        found = bench.take_clean(it.fatal)
        lost = bench.repeat(cut, bury)
        found += bench.take_clean(it.fatal)
        there[task] = [lease.envelope.body for lease in found if lease.envelope.id == task]
        done[task] = not lost or it.claims(Capability.TIMED_LEASE)
    back = bench.come_back({task for task, bodies in there.items() if not bodies})
    copies = {task: len(bodies) + len(back[task]) for task, bodies in there.items()}
    most = 1 if it.claims(Capability.ATOMIC_MOVE) else 2
    wrong: dict[str, object] = {task: count for task, count in copies.items() if not 1 <= count <= most}
    expect(not wrong, f"copies of a task in both queues, it should be one: {bench.say(wrong)}")
    wrong = {task: bodies for task, bodies in there.items() if done[task] and NEW not in bodies}
    expect(not wrong, f"bodies in the other queue of tasks that were moved there: {bench.say(wrong)}")


@row("BAT-01", timeout=180)
def an_enqueue_of_several_that_is_cut_stores_each_wholly_or_not(it: Scene) -> None:
    """Given a batch of envelopes, when the connection is cut anywhere in its `enqueue`, each of them is stored once and
    whole, or not at all; and all of them are if the call returned.
    """
    bench = Bench(it)
    allowed: dict[str, list[list[bytes]]] = {}

    def batch() -> list[Envelope]:
        return [it.envelope(OLD) for _ in range(min(3, it.limits.max_batch))]

    for cut in bench.sweep(bench.through.enqueue, batch):
        whole = [[OLD]] if cut.answered else [[], [OLD]]
        allowed.update({each.id: whole for each in cut.given})
        bench.where.update({each.id: str(cut) for each in cut.given})
    back = bench.come_back([task for task, each in allowed.items() if [] not in each])
    missing = {task: back[task] for task, each in allowed.items() if not back[task] and [] not in each}
    expect(not missing, f"envelopes of a batch whose enqueue returned aren't there: {bench.say(missing)}")
    wrong = {task: back[task] for task, each in allowed.items() if back[task] and back[task] not in each}
    expect(
        not wrong, f"bodies of an envelope that were stored, it should be one, and whole: {bench.say(wrong)}"
    )


@row("NET-01", timeout=180)
def an_enqueue_that_is_cut_stores_at_most_once(it: Scene) -> None:
    """Given an envelope, when the connection is cut anywhere in its `enqueue`, it is stored once if that returned, and
    once or not at all if it raised. With IDEMPOTENT it can be enqueued again after an error, and is there once.
    """
    bench = Bench(it)
    allowed: dict[str, tuple[int, ...]] = {}

    def enqueue(envelope: Envelope) -> None:
        bench.through.enqueue([envelope])

    for cut in bench.sweep(enqueue, it.envelope):
        bench.where[cut.given.id] = str(cut)
        if not cut.answered and it.claims(Capability.IDEMPOTENT):
            connect(partial(enqueue, cut.given))
            allowed[cut.given.id] = (1,)
        else:
            allowed[cut.given.id] = (1,) if cut.answered else (0, 1)
    back = bench.come_back([task for task, counts in allowed.items() if 0 not in counts])
    wrong = {task: len(back[task]) for task, counts in allowed.items() if len(back[task]) not in counts}
    expect(
        not wrong,
        f"copies of a task that was enqueued once, or repeated where that is safe: {bench.say(wrong)}",
    )


@row("NET-02", timeout=180)
def a_task_whose_acquire_is_cut_reaches_someone(it: Scene) -> None:
    """Given a ready task, when the connection is cut anywhere in an `acquire` and nobody settles the task, it is
    offered again within the lease and `limits.recovery`. Its `deaths` is 1 if the call had leased it, whether its reply
    came or not, else 0.
    """
    bench = Bench(it)
    queues: dict[str, int | None] = {}  # → how many leases there were, of the one task in it
    last: list[Lease] = []

    def ready_task() -> str:
        it.put(by=bench.clean, queue=(queue := it.name(f"q{len(queues)}")))
        return queue

    def acquire(queue: str) -> list[Lease]:
        return it.take(by=bench.through, queue=queue, lease_for=it.lease)

    for cut in bench.sweep(acquire, ready_task):
        last = cut.answer or last
        queues[cut.given] = bench.clean.stats(cut.given).leased if it.claims(Capability.TIMED_LEASE) else None
    it.abandon(last, by=bench.through)
    end = time.monotonic() + it.lease + it.grace
    missing = []
    for queue, leased in queues.items():
        leases = it.take(by=bench.clean, queue=queue, wait=max(0.0, end - time.monotonic()))
        if not leases:
            missing.append(queue)
        elif leased is not None:
            expect_equal(
                leases[0].deaths, leased, f"deaths of a task that was leased {leased} times and never settled"
            )
    expect(
        not missing,
        f"{len(missing)} of {len(queues)} tasks whose acquire was cut weren't offered again within a lease and "
        f"limits.recovery ({it.lease:g} + {it.limits.recovery:g} s)",
    )
