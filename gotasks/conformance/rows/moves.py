"""Rows: moves. A release into another queue: there with its new body, gone here, and at no moment nowhere."""

from __future__ import annotations

import threading
import time

from gotasks.broker import Capability
from gotasks.conformance.expect import Nonconformance, expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene


@row("MOV-01")
def a_move_ends_here_and_begins_at_the_back_there(it: Scene) -> None:
    """Given held tasks, one of which its holder before left, when one call releases them into several queues,
    then each waits in its own behind what waited there, with the new body and no deaths, and is gone from where
    it was.
    """
    near, far = it.name("near"), it.name("far")
    dead = it.client()
    sent = it.put(3)
    it.abandon([it.take_one(by=dead, lease_for=it.lease)], by=dead)
    before = it.put(1, queue=near) + it.put(1, queue=far)
    leases = {lease.envelope.id: lease for lease in it.take_all(3, wait=it.grace)}
    if sorted(leases) != sorted(sent):
        raise Nonconformance(
            f"of two ready tasks and one that a dead holder left, {len(leases)} are offered {it.grace:g} s later"
        )
    writes = [
        it.write(leases[each], each.encode(), queue=queue)
        for each, queue in zip(sent, (near, far, far), strict=True)
    ]
    for start in range(0, len(writes), it.limits.max_batch):
        it.broker.release(writes[start : start + it.limits.max_batch])
    expect_equal(len(it.take(9)), 0, "tasks that are offered still where they were moved away from")
    came = {queue: it.take_all(9, queue=queue) for queue in (near, far)}
    seen = {queue: [(each.envelope.id, each.deaths) for each in leases] for queue, leases in came.items()}
    right = {near: [(before[0], 0), (sent[0], 0)], far: [(before[1], 0), (sent[1], 0), (sent[2], 0)]}
    if not it.limits.fifo:
        seen = {queue: sorted(each) for queue, each in seen.items()}
        right = {queue: sorted(each) for queue, each in right.items()}
    expect_equal(seen, right, "ids and deaths of what is in the two queues after the moves")
    bodies = {each.envelope.id: each.envelope.body for each in (*came[near], *came[far])}
    expect_equal(
        {each: bodies.get(each) for each in sent},
        {each: each.encode() for each in sent},
        "bodies of moved tasks",
    )


@row("MOV-02", needs=Capability.ATOMIC_MOVE | Capability.RECORDS)
def a_task_that_is_moved_is_at_no_moment_nowhere(it: Scene) -> None:
    """Given a task that is moved to and fro between two queues, when it is asked for by its id meanwhile, then
    it is always there, and in one of the two.
    """
    there = it.name("there")
    (task_id,) = it.put()
    watcher, over = it.client(), threading.Event()
    seen: list[str | None] = []

    def watch() -> None:
        while not over.is_set():
            record = watcher.get([task_id]).get(task_id)
            seen.append(None if record is None else record.queue)

    watching = it.begin(watch)
    end = time.monotonic() + it.times(quick=1, full=10) / 2
    queues = [it.queue, there]
    moves = 0
    while time.monotonic() < end:
        it.broker.release([it.write(it.take_one(queue=queues[0]), queue=queues[1])])
        queues.reverse()
        moves += 1
    over.set()
    watching.result(30.0)
    it.figures["moves"], it.figures["looks"] = moves, len(seen)
    astray = [each for each in seen if each not in queues]
    expect(
        not astray,
        f"{len(astray)} of {len(seen)} looks didn't find the task in one of the two: {set(astray)}",
    )
