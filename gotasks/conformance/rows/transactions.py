"""Rows: transactions of the caller's. A task is there if and only if the one in which it was enqueued commits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from typing import cast

from gotasks.broker import Broker, Capability, Envelope, State
from gotasks.conformance.adapter import NotApplicable, Transaction
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.rows.delay import ROUNDING
from gotasks.conformance.scene import PATIENCE, Scene, ids_of

#: So long is waited for what an open transaction may hold up. A busy machine gets the time. Seconds.
HELD_UP = 5.0

#: So long a transaction stays open while others look for what is in it, or wait for its end. Seconds.
OPEN = 0.3

#: How long after the commit somebody who waits gets the task at the latest. Seconds.
SOON = 3.0


def begin(it: Scene) -> Transaction:
    """A transaction of a program's own, which is rolled back with the row if it's open still."""
    # What a broker does at its first use (it may make tables) isn't what these rows are about.
    it.broker.stats(it.queue)
    return cast(Transaction, it.enter(it.adapter.transaction(it.url)))


def notes(it: Scene, word: str, seen_by: Transaction | None = None) -> list[str]:
    """What begins with `word` in the program's own table: what is committed, or what a transaction sees."""
    if seen_by is not None:
        return sorted(each for each in seen_by.notes() if each.startswith(word))
    with it.adapter.transaction(it.url) as another:
        return notes(it, word, another)


@row("TXN-01", needs=Capability.TRANSACTIONAL)
def what_is_enqueued_in_a_transaction_is_there_after_its_commit(it: Scene) -> None:
    """Given a transaction in which the program has written a row of its own and enqueued tasks, in several calls, one
    of them of as many as `limits.max_batch` allows (up to 100), one of none, when it commits, then all are there with
    their bodies, in their order where the broker keeps one, and so is the row.
    """
    sent = [it.envelope(f"body {number}".encode()) for number in range(min(it.limits.max_batch, 100) + 1)]
    transaction = begin(it)
    transaction.note(f"{it.queue} mine")
    there = [it.broker.enqueue_on(transaction.connection, part) for part in (sent[:1], [], sent[1:])]
    transaction.commit()
    expect_equal(list(map(dict, there)), [{}] * 3, "what enqueue_on answers for new ids")
    came = [(lease.envelope.id, lease.envelope.body) for lease in it.drain()]
    right = [(each.id, each.body) for each in sent]
    if not it.limits.fifo:
        came, right = sorted(came), sorted(right)
    expect_equal(came, right, "ids and bodies that come out after the commit")
    expect_equal(
        notes(it, it.queue), [f"{it.queue} mine"], "what the program's own table holds after the commit"
    )


@row("TXN-02", needs=Capability.TRANSACTIONAL)
def what_is_enqueued_in_a_transaction_is_gone_after_its_rollback(it: Scene) -> None:
    """Given a transaction in which tasks were enqueued, when it is rolled back, then none of them is there, and
    their ids and unique keys can be used, by an enqueue as in another transaction.
    """
    key = it.name("key") if it.claims(Capability.UNIQUE) else None
    one, two = it.envelope(unique=key), it.envelope()
    transaction = begin(it)
    for each in (one, two):
        it.broker.enqueue_on(transaction.connection, [each])
    transaction.rollback()
    expect_equal(ids_of(it.drain()), [], "what comes out after a rollback")
    there = dict(it.broker.enqueue([one]))
    another = begin(it)
    there |= it.broker.enqueue_on(another.connection, [two])
    another.commit()
    expect_equal(there, {}, "what is answered as there, though it was rolled back")
    came = sorted(ids_of(it.drain()))
    expect_equal(came, sorted([one.id, two.id]), "what comes out when ids are used again after a rollback")


@row("TXN-03", needs=Capability.TRANSACTIONAL)
def before_the_commit_nobody_sees_it(it: Scene) -> None:
    """Given a transaction in which a task was enqueued, then until it commits no client sees the task, by whatever
    call, and after the commit each does.
    """
    task, client = it.envelope(), it.client()
    client.stats(it.queue)
    transaction = begin(it)
    it.broker.enqueue_on(transaction.connection, [task])

    def seen() -> list[bool]:
        """By stats, get and browse, as far as there are."""
        looks = [client.stats(it.queue) != it.at_rest()] if client.stats(it.queue).ready is not None else []
        if it.claims(Capability.RECORDS):
            looks.append(task.id in client.get([task.id]))
        if it.claims(Capability.BROWSE):
            looks.append(task.id in ids_of(client.browse(it.queue, state=State.READY, limit=9)))
        return looks

    before = seen()
    if not transaction.excludes:
        before.append(bool(it.take(by=client)))
        if it.claims(Capability.BROWSE):
            before.append(bool(it.take(by=client, ids=[task.id])))
    transaction.commit()
    after = [*seen(), bool(it.take(by=client))]
    expect_equal(before, [False] * len(before), "whether a client sees a task before the commit")
    expect_equal(after, [True] * len(after), "whether a client sees a task after the commit")


@row("TXN-04", needs=Capability.TRANSACTIONAL)
def an_open_transaction_holds_up_nobody(it: Scene) -> None:
    """Given a transaction in which a task was enqueued and which stays open, then others enqueue into the same queue,
    acquire, checkpoint, release and ack there, and none of these waits for it.
    """
    it.put()
    transaction, client = begin(it), it.client()
    if transaction.excludes:
        raise NotApplicable("a transaction that has written excludes all who want to write")
    it.broker.enqueue_on(transaction.connection, [it.envelope()])

    def work(broker: Broker) -> list[str]:
        it.put(by=broker)
        (lease,) = it.take_all(1, by=broker)
        broker.checkpoint([it.write(lease, seq=1)])
        if it.claims(Capability.HANDOFF):
            (lease,) = it.take_all(1, by=broker)
        broker.release([it.write(lease, seq=2)])
        return ids_of(it.drain(by=broker))

    working = it.begin(lambda: work(client))
    try:
        working.result(HELD_UP)
        in_time = True
    except FutureTimeout:
        in_time = False
    transaction.commit()
    came = sorted([*working.result(PATIENCE), *ids_of(it.drain())])
    expect(in_time, f"others waited for more than {HELD_UP:g} s beside an open transaction")
    expect_equal(len(came), 3, "tasks that come out: one from before, one of others, one of the transaction")


@row("TXN-05", needs=Capability.TRANSACTIONAL)
def a_savepoint_takes_back_what_came_after_it_and_nothing_else(it: Scene) -> None:
    """Given a transaction with a task, a savepoint and another task, when the savepoint is rolled back, then the
    second is gone, its id can be used in the same transaction, and the first stays; what a savepoint keeps is there
    after the commit, and only then.
    """
    before, after, kept, freed = (it.envelope() for _ in range(4))
    transaction = begin(it)

    def enqueue(envelope: Envelope) -> Mapping[str, str]:
        return it.broker.enqueue_on(transaction.connection, [envelope])

    enqueue(before)
    savepoint = transaction.savepoint()
    enqueue(after)
    enqueue(freed)
    savepoint.rollback()
    savepoint = transaction.savepoint()
    enqueue(kept)
    there = enqueue(freed)
    savepoint.commit()
    early = [] if transaction.excludes else ids_of(it.drain())
    transaction.commit()
    expect_equal(dict(there), {}, "what is answered for an id that a savepoint took back")
    expect_equal(early, [], "what comes out when a savepoint was kept, before the commit")
    came = sorted([*early, *ids_of(it.drain())])
    expect_equal(came, sorted([before.id, kept.id, freed.id]), "what comes out after the commit")


@row("TXN-06", needs=Capability.TRANSACTIONAL | Capability.DELAY)
def a_delay_counts_from_the_call(it: Scene) -> None:
    """Given a transaction that has been open for a while, when a task is enqueued in it with a delay, then that counts
    from this call: not from the transaction's beginning, and not from its commit. If it is over by the commit, the
    task is ready at once.
    """
    delay = 0.5
    transaction = begin(it)
    transaction.note(it.queue)  # some servers begin, and stop their clock, with the first statement only
    threading.Event().wait(delay)
    began = time.monotonic()
    it.broker.enqueue_on(transaction.connection, [it.envelope(delay=delay)])
    transaction.commit()
    it.take_one(wait=20.0)
    waited = time.monotonic() - began
    expect(waited > delay - ROUNDING, f"with a delay of {delay:g} s it came {waited:.3f} s after enqueue_on")
    another = begin(it)
    it.broker.enqueue_on(another.connection, [it.envelope(delay=delay)])
    threading.Event().wait(2 * delay)
    another.commit()
    expect_equal(len(it.take()), 1, "tasks whose delay was over by the commit, right after it")


@row("TXN-07", needs=Capability.TRANSACTIONAL)
def who_waits_gets_it_soon_after_the_commit(it: Scene) -> None:
    """Given somebody who waits in `acquire`, and a transaction in which a task was enqueued, then they aren't given
    it before the commit, and are within 3 s of it.
    """
    client, task, transaction = it.client(), it.envelope(), begin(it)
    waiting = it.begin(lambda: (ids_of(it.take(by=client, wait=20.0)), time.monotonic()))
    it.broker.enqueue_on(transaction.connection, [task])
    threading.Event().wait(OPEN)
    early = waiting.done()
    committing = time.monotonic()
    transaction.commit()
    came, moment = waiting.result(30.0)
    expect(not early, "an acquire that waits returned while the transaction was open")
    expect_equal(came, [task.id], "what an acquire that waits gives after the commit")
    waited = moment - committing
    expect(waited < SOON, f"an acquire that waits gave the task {waited:.1f} s after the commit only")


@row("TXN-08", needs=Capability.TRANSACTIONAL)
def the_asynchronous_twin_does_the_same(it: Scene) -> None:
    """Given a transaction, when a task is enqueued in it by `aenqueue_on`, on an event loop, then it is there after
    the commit, and not before; after a rollback it isn't.
    """
    task, undone = it.envelope(), it.envelope()
    transaction = begin(it)
    there = asyncio.run(_on_a_loop(it.broker, transaction, [task]))
    early = [] if transaction.excludes else ids_of(it.drain())
    transaction.commit()
    another = begin(it)
    there |= asyncio.run(_on_a_loop(it.broker, another, [undone]))
    another.rollback()
    expect_equal((there, early), ({}, []), "what aenqueue_on answers, and what comes out before the commit")
    came = [*early, *ids_of(it.drain())]
    expect_equal(came, [task.id], "what comes out after a commit and a rollback")


async def _on_a_loop(broker: Broker, transaction: Transaction, envelopes: list[Envelope]) -> dict[str, str]:
    return dict(await broker.aenqueue_on(transaction.connection, envelopes))
