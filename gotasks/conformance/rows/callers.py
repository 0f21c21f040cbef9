"""Rows: a transaction stays its caller's, whatever becomes of enqueues in it, of others beside it, of the program."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from functools import partial

from gotasks.broker import Broker, Capability, Envelope
from gotasks.conformance.adapter import Adapter, NotApplicable
from gotasks.conformance.expect import expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.rows.transactions import OPEN, begin, notes
from gotasks.conformance.scene import LONG, PATIENCE, Scene, ids_of
from gotasks.errors import BrokerClosed, ConfigurationError, Rejected, Unsupported

IDEMPOTENT = Capability.TRANSACTIONAL | Capability.IDEMPOTENT
UNIQUE = Capability.TRANSACTIONAL | Capability.UNIQUE

#: A limit that is higher than this isn't tried. Bytes.
LARGEST = 64 << 20

#: In a process of the suite: what it has open.
_OPEN: list[object] = []


@row("TXN-09", needs=Capability.TRANSACTIONAL)
def a_transaction_stays_the_callers(it: Scene) -> None:
    """Given a transaction in which the program has written a row of its own, when a task is enqueued in it, then it
    is neither committed (nobody else sees the row) nor rolled back (the program itself does) nor closed (it can
    write another one), also if the broker is closed then. What the program does at last decides.
    """
    for end in ("commit", "rollback"):
        broker = it.adapter.open(it.url) if it.claims(Capability.SHARED) else it.broker
        broker.stats(it.queue)
        queue, transaction = it.name(end), begin(it)
        task = it.envelope(queue=queue)
        transaction.note(f"{queue} 1")
        broker.enqueue_on(transaction.connection, [task])
        others, itself = notes(it, queue), notes(it, queue, transaction)
        if broker is not it.broker:
            broker.close()
        transaction.note(f"{queue} 2")
        (transaction.commit if end == "commit" else transaction.rollback)()
        seen = others, itself, ids_of(it.drain(queue=queue)), notes(it, queue)
        left = ([task.id], [f"{queue} 1", f"{queue} 2"]) if end == "commit" else ([], [])
        what = "what others and the program itself see of its rows while its transaction is open"
        expect_equal(
            seen, ([], [f"{queue} 1"], *left), f"{what}; tasks that come out, and its rows, after a {end}"
        )


@row("TXN-10", needs=Capability.TRANSACTIONAL)
def what_is_rejected_leaves_the_transaction_as_it_was(it: Scene) -> None:
    """Given a transaction with a row of the program's own and a task, when an enqueue in it is Rejected (a body or a
    delay beyond the limits), Unsupported (an option that isn't claimed) or answered as there, then the transaction
    goes on: what was done in it before, and what comes after, is there after its commit.
    """
    for number, (what, (sent, error)) in enumerate(_refused(it).items()):
        queue, transaction, raised = it.name(f"case-{number}"), begin(it), "nothing"
        before, after = it.envelope(queue=queue), it.envelope(queue=queue)
        transaction.note(f"{queue} before")
        it.broker.enqueue_on(transaction.connection, [before])
        try:
            it.broker.enqueue_on(transaction.connection, [sent])
        except (Rejected, Unsupported) as caught:
            raised = "Rejected" if isinstance(caught, Rejected) else "Unsupported"
        it.broker.enqueue_on(transaction.connection, [after])
        transaction.note(f"{queue} then")
        transaction.commit()
        expect_equal(raised, error, f"what enqueue_on of {what} raises")
        seen = sorted(ids_of(it.drain(queue=queue))), notes(it, queue)
        right = sorted([before.id, after.id]), [f"{queue} before", f"{queue} then"]
        expect_equal(seen, right, f"tasks and rows of a transaction that went on after an enqueue of {what}")


def _refused(it: Scene) -> dict[str, tuple[Envelope, str]]:
    """What is enqueued in vain on this broker, and what that raises."""
    limits, claims, elsewhere = it.limits, it.claims, it.name("elsewhere")
    found: dict[str, tuple[Envelope, str]] = {}
    if limits.max_payload is not None and limits.max_payload < LARGEST:
        found["a body that is too large"] = it.envelope(bytes(limits.max_payload + 1)), "Rejected"
    if limits.max_delay is not None and claims(Capability.DELAY):
        found["a delay that is too long"] = it.envelope(delay=limits.max_delay + 1), "Rejected"
    options = {
        Capability.DELAY: it.envelope(delay=1.0),
        Capability.PRIORITY: it.envelope(priority=1),
        Capability.UNIQUE: it.envelope(unique=it.name("unclaimed")),
    }
    for capability, asking in options.items():
        if not claims(capability):
            found[f"what needs {capability.name}"] = asking, "Unsupported"
    holder = it.envelope(queue=elsewhere, unique=it.name("key") if claims(Capability.UNIQUE) else None)
    it.broker.enqueue([holder])
    if claims(Capability.IDEMPOTENT):
        found["an id that is there"] = holder, "nothing"
    if claims(Capability.UNIQUE):
        found["a unique key that is taken"] = it.envelope(unique=holder.unique), "nothing"
    if not found:
        raise NotApplicable("there is nothing that it refuses")
    return found


@row("TXN-11", needs=IDEMPOTENT)
def an_id_that_is_there_is_answered_in_a_transaction_too(it: Scene) -> None:
    """Given an id that is there (its task is ready, held, or done with its record kept), or that was enqueued before
    in the same transaction, or in the same call, when it is enqueued in a transaction, then it isn't stored, and is
    answered with itself; the other envelopes of the call are stored.
    """
    ready, held, done, new, other = (it.envelope() for _ in range(5))
    there = [held]
    it.broker.enqueue([held])
    it.take_one()
    if it.claims(Capability.RECORDS):
        it.broker.enqueue([done])
        it.broker.ack([it.write(it.take_one())], keep_for=LONG)
        there.append(done)
    it.broker.enqueue([ready])
    there.append(ready)
    transaction = begin(it)
    answers = dict(it.broker.enqueue_on(transaction.connection, [new]))
    calls = [[each] for each in (*there, new, other, other)]
    if it.limits.max_batch >= 3:
        calls = [[each] for each in (*there[1:], new)] + [[there[0], other, other]]
    for call in calls:
        answers |= it.broker.enqueue_on(transaction.connection, call)
    transaction.commit()
    expect_equal(answers, {each.id: each.id for each in (*there, new, other)}, "what enqueue_on answers")
    came = sorted(ids_of(it.drain()))
    expect_equal(came, sorted([ready.id, new.id, other.id]), "what comes out after the commit")


@row("TXN-12", needs=UNIQUE)
def a_unique_key_that_is_taken_is_answered_in_a_transaction_too(it: Scene) -> None:
    """Given a unique key whose task lives, or was enqueued before in the same transaction, when another task with
    this key is enqueued in a transaction, then it isn't stored, and is answered with the id of the first. After the
    commit the key is taken for everybody.
    """
    lives, fresh = it.name("lives"), it.name("fresh")
    holder = it.envelope(unique=lives)
    it.broker.enqueue([holder])
    transaction = begin(it)
    first, second, third, late = (it.envelope(unique=key) for key in (fresh, fresh, lives, fresh))
    answers: dict[str, str] = {}
    for each in (first, second, third):
        answers |= it.broker.enqueue_on(transaction.connection, [each])
    transaction.commit()
    right = {second.id: first.id, third.id: holder.id}
    expect_equal(answers, right, "what enqueue_on answers for unique keys that are taken")
    seen = dict(it.broker.enqueue([late])), sorted(ids_of(it.drain()))
    right_then = {late.id: first.id}, sorted([holder.id, first.id])
    expect_equal(seen, right_then, "what is answered for the key after the commit, and what comes out")


@row("TXN-13", needs=IDEMPOTENT)
def of_transactions_that_race_for_an_id_one_stores_it(it: Scene) -> None:
    """Given four who enqueue the same id (or the same unique key) at the same time, each in a transaction that
    commits, then one task is stored, and the others are told its id.
    """
    clients = [it.client() for _ in range(4)]
    kinds = ["id"] + ["key"] * it.claims(Capability.UNIQUE)
    for number in range(it.times(quick=10, full=30)):
        for kind in kinds:
            one, key = it.envelope(), f"{it.queue} {number}"
            sent = [one] * 4 if kind == "id" else [it.envelope(unique=key) for _ in range(4)]
            sends = [
                partial(_in_a_transaction, it, client, each)
                for client, each in zip(clients, sent, strict=True)
            ]
            answers = it.in_threads(*sends)
            stored = ids_of(it.drain())
            expect_equal(len(stored), 1, f"tasks that are stored, of four transactions with the same {kind}")
            right = sorted(["", *[stored[0]] * 3])
            expect_equal(
                sorted(answer.get(each.id, "") for answer, each in zip(answers, sent, strict=True)),
                right,
                f"what four transactions with the same {kind} are answered",
            )


def _in_a_transaction(it: Scene, client: Broker, envelope: Envelope) -> dict[str, str]:
    with it.adapter.transaction(it.url) as transaction:
        answer = dict(client.enqueue_on(transaction.connection, [envelope]))
        transaction.commit()
        return answer


@row("TXN-14", needs=IDEMPOTENT)
def what_an_open_transaction_holds_waits_for_its_end(it: Scene) -> None:
    """Given an id that was enqueued in a transaction which is open, when others enqueue it, in a transaction of their
    own or without one, then they are answered after its end: that it is there, if it committed; else they store it.
    """
    client = it.client()
    ways: Mapping[str, Callable[[Envelope], dict[str, str]]] = {
        "a transaction": lambda envelope: _in_a_transaction(it, client, envelope),
        "an enqueue": lambda envelope: dict(client.enqueue([envelope])),
    }
    for way, enqueue in ways.items():
        for end in ("commit", "rollback"):
            envelope, transaction = it.envelope(), begin(it)
            it.broker.enqueue_on(transaction.connection, [envelope])
            answering = it.begin(partial(enqueue, envelope))
            threading.Event().wait(
                OPEN
            )  # who doesn't wait for its end answers now, and wrong for one of its ends
            (transaction.commit if end == "commit" else transaction.rollback)()
            answer = answering.result(PATIENCE)
            right = {envelope.id: envelope.id} if end == "commit" else {}
            expect_equal(answer, right, f"what {way} is answered after the {end} of the one before")
            expect_equal(ids_of(it.drain()), [envelope.id], f"what comes out of {way} after a {end}")


@row("TXN-15", needs=Capability.TRANSACTIONAL)
def a_connection_that_is_not_its_own_is_refused(it: Scene) -> None:
    """Given what is no connection of the broker's kind, when something is enqueued on it, by `enqueue_on` or
    `aenqueue_on`, then that raises ConfigurationError; on a broker that was closed it raises BrokerClosed. Nothing
    is stored, and a transaction goes on.
    """
    raised: dict[str, str] = {}

    def try_(what: str, call: Callable[[], object]) -> None:
        try:
            call()
            raised[what] = "nothing"
        except Exception as error:  # whatever it is, it's shown
            raised[what] = type(error).__name__

    for what, foreign in (("an object", object()), ("None", None), ("a URL", it.url), ("itself", it.broker)):
        send = [it.envelope()]
        try_(what, partial(it.broker.enqueue_on, foreign, send))
        try_(f"{what}, async", partial(_run, it.broker, foreign, send))
    closed, transaction = it.adapter.open(it.url), begin(it)
    closed.close()
    try_("closed", partial(closed.enqueue_on, transaction.connection, [it.envelope()]))
    right = dict.fromkeys(raised, ConfigurationError.__name__)
    right["closed"] = BrokerClosed.__name__
    expect_equal(raised, right, "what is raised by an enqueue on a connection of another kind")
    task = it.envelope()
    it.broker.enqueue_on(transaction.connection, [task])
    transaction.commit()
    expect_equal(ids_of(it.drain()), [task.id], "what comes out, of what was refused and one that wasn't")


def _run(broker: Broker, connection: object, envelopes: Sequence[Envelope]) -> object:
    async def call() -> object:
        return await broker.aenqueue_on(connection, envelopes)

    return asyncio.run(call())


@row("TXN-16", needs=Capability.TRANSACTIONAL, processes=True)
def who_is_killed_before_the_commit_has_enqueued_nothing(it: Scene) -> None:
    """Given a process that is killed (SIGKILL) between its enqueue in a transaction and the commit, then the task
    isn't there, and its id and unique key can be used again, within 20 s. A process that is killed after the commit
    has enqueued its task.
    """
    key = it.name("key") if it.claims(Capability.UNIQUE) else None
    lost, kept = it.envelope(unique=key), it.envelope()
    for envelope in (lost, kept):
        process = it.elsewhere()
        process.call(_enqueue_elsewhere, it.adapter, it.url, envelope, commit=envelope is kept)
        process.kill()
    came = ids_of(it.drain())
    expect_equal(came, [kept.id], "what comes out of two who were killed before and after their commit")
    again = it.begin(lambda: dict(it.broker.enqueue([lost])))
    answer: Mapping[str, str] | None = None
    with suppress(FutureTimeout):
        answer = again.result(PATIENCE)
    expect_equal(answer, {}, "what is answered for the id of one who was killed before their commit")
    expect_equal(ids_of(it.drain()), [lost.id], "what comes out when it's enqueued again")


def _enqueue_elsewhere(
    broker: Broker, adapter: Adapter, url: str, envelope: Envelope, *, commit: bool
) -> None:
    """In another process: enqueue in a transaction, commit or not, and leave all open."""
    context = adapter.transaction(url)
    transaction = context.__enter__()
    _OPEN.append((context, transaction))
    broker.enqueue_on(transaction.connection, [envelope])
    if commit:
        transaction.commit()
