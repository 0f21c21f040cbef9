"""Rows: what takes a unique key, and what frees it: the end of the task that has it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gotasks.broker import Broker, Capability, Envelope, Lease
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.kit.keywalk import KeyWalk
from gotasks.conformance.row import row
from gotasks.conformance.scene import LONG, Scene

#: How long a record is kept that a row waits for. Seconds.
BRIEFLY = 0.2

_WAITS = ("ready", "delayed", "released", "released with a delay", "moved")
_HELD = ("held", "checkpointed", "taken over")
_DELAYED = ("delayed", "released with a delay")


class _Case(NamedTuple):
    """A task with a unique key in some state, and the way in which it is going to end."""

    state: str
    end: str
    task: Envelope
    queue: str  #: where it is
    lease: Lease | None  #: if it is held


@row("UNQ-06", needs=Capability.UNIQUE)
def a_unique_key_is_taken_until_its_task_ends(it: Scene) -> None:
    """Given tasks with unique keys in every state (ready, delayed, held, checkpointed, released, put off, moved, taken
    over from a dead holder), their keys are taken. When each is acked (its record kept or not), purged or cancelled,
    whatever of these its state allows, its key is free, for one other task.
    """
    cases = _cases(it)
    it.figures["states and ends"] = len(cases)
    wrong: dict[str, str] = {}
    for case in cases:
        name = f"{case.state}, {case.end}"
        if not _is_with(it, case.task, case.task.unique):
            wrong[name] = "not taken before the end"
            continue
        _end(it, case)
        heir = it.envelope(queue=it.fatal, unique=case.task.unique)
        if it.broker.enqueue([heir]):
            wrong[name] = "not free after the end"
        elif not _is_with(it, heir, case.task.unique):
            wrong[name] = "free for more than one after the end"
    expect_equal(wrong, {}, "unique keys of tasks, by their state and end")


@row("UNQ-07", needs=Capability.UNIQUE)
def nobody_else_frees_a_unique_key(it: Scene) -> None:
    """Given a living task with a unique key, when a former holder's ack is lost, its queue is purged while it is held,
    or whoever had the key before is acked or cancelled once more or its record is forgotten, then the key is taken
    still.
    """
    ways: dict[str, Callable[[Scene], Envelope]] = {
        "an ack that was lost": _after_a_lost_ack,
        "a purge while it was held": _after_a_purge,
        "a repeated ack of the task that had it before": _after_a_repeated_ack,
    }
    if it.claims(Capability.RECORDS):
        ways["the end of the record of the task that had it before"] = _after_a_forgotten_record
    if it.claims(Capability.CANCEL):
        ways["a repeated cancel of the task that had it before"] = _after_a_repeated_cancel
    owners = {way: bring(it) for way, bring in ways.items()}
    wrong = [way for way, owner in owners.items() if not _is_with(it, owner, owner.unique)]
    expect_equal(wrong, [], "what frees a unique key though its task lives")


@row("UNQ-08", needs=Capability.UNIQUE)
def what_was_refused_for_its_key_leaves_nothing_behind(it: Scene) -> None:
    """Given an envelope that wasn't stored because its unique key was taken, it isn't counted. When the key is free,
    the same envelope, with the same id, is stored and delivered.
    """
    key = f"{it.queue} key"
    first, second = it.envelope(unique=key), it.envelope(b"second", unique=key)
    it.broker.enqueue([first])
    it.broker.enqueue([second])
    expect_equal(it.broker.stats(it.queue), it.at_rest(ready=1), "stats after the second of two with one key")
    it.broker.ack([it.write(it.take_one())], keep_for=0)
    there = it.broker.enqueue([second])
    came = [(each.envelope.id, each.envelope.body) for each in it.take_all(3)]
    expect_equal(
        (dict(there), came),
        ({}, [(second.id, b"second")]),
        "what the enqueue answers of an envelope that was refused before for its key, now free, and what comes out",
    )


@row("UNQ-09", needs=Capability.UNIQUE)
def a_lease_tells_the_unique_key(it: Scene) -> None:
    """Given tasks with a unique key of any text, the empty one too, or with none, then the envelope of every lease has
    it as it was sent, and with PRIORITY the priority: the first one, and that after a release, a move, or a death.
    """
    far, dead = it.name("far"), it.client()
    priority = 7 if it.claims(Capability.PRIORITY) else 0
    keys: list[str | None] = [f"{it.queue} ä", "" if it.alone else f"{it.queue} ", None]
    sent = [it.envelope(unique=key, priority=priority) for key in keys]
    for each in sent:
        it.broker.enqueue([each])
    right = {each.id: (each.unique, priority) for each in sent}
    seen: dict[str, dict[str, tuple[str | None, int]]] = {}

    def look(when: str, leases: Sequence[Lease]) -> Sequence[Lease]:
        seen[when] = {each.envelope.id: (each.envelope.unique, each.envelope.priority) for each in leases}
        return leases

    for lease in look("at first", it.take_all(3)):
        it.broker.release([it.write(lease)])
    for lease in look("after a release", it.take_all(3)):
        it.broker.release([it.write(lease, queue=far)])
    it.abandon(look("after a move", it.take_all(3, by=dead, queue=far, lease_for=it.lease)), by=dead)
    look("after a death", it.take_all(3, queue=far, wait=it.grace))
    wrong = {when: each for when, each in seen.items() if each != right}
    expect_equal(
        wrong, {}, f"unique keys and priorities in leases where {sorted(right.values(), key=repr)} was sent"
    )


@row("UNQ-10", needs=Capability.UNIQUE)
def whatever_is_done_a_unique_key_has_one_living_task(it: Scene) -> None:
    """Given tasks that are enqueued with a few unique keys, acquired, checkpointed, put back, moved, acked, purged and
    cancelled at random, with writes that come too late, then each enqueue is answered with the living task that has
    its key, and stored if there is none, be it one that was refused before.
    """
    steps = it.times(quick=300, full=3000)
    it.figures["steps"] = steps
    walk = KeyWalk(it)
    walk.go(steps)
    expect(not walk.wrong, walk.wrong)


# -- every state and every end ------------------------------------------------------------------------


def _cases(it: Scene) -> list[_Case]:
    dead = it.client()
    states = [each for each in (*_WAITS, *_HELD) if it.claims(Capability.DELAY) or each not in _DELAYED]
    cases = [
        _Case(state, end, *_bring(it, dead, state, f"{number}-{place}"))
        for number, state in enumerate(states)
        for place, end in enumerate(_ends(it, state))
    ]
    it.abandon([each.lease for each in cases if each.lease and each.state == "taken over"], by=dead)
    return [
        each._replace(lease=it.take_one(queue=each.queue, wait=it.grace))
        if each.state == "taken over"
        else each
        for each in cases
    ]


def _ends(it: Scene, state: str) -> list[str]:
    """The ends that are possible there."""
    ends = []
    if state not in _DELAYED or it.claims(Capability.BROWSE):
        ends += ["ack"] + ["ack, kept"] * it.claims(Capability.RECORDS)
    return ends + ["purge"] * (state in _WAITS) + ["cancel"] * it.claims(Capability.CANCEL)


def _bring(it: Scene, dead: Broker, state: str, name: str) -> tuple[Envelope, str, Lease | None]:
    """A task in this state, the queue in which it is, and the lease under which it is held. `dead` has to die."""
    queue = it.name(name)
    task = it.envelope(queue=queue, unique=f"{queue} key", delay=it.later if state == "delayed" else 0.0)
    it.broker.enqueue([task])
    if state in ("ready", "delayed"):
        return task, queue, None
    if state == "taken over":
        return task, queue, it.take_one(by=dead, queue=queue, lease_for=it.lease)
    lease = it.take_one(queue=queue)
    if state == "held":
        return task, queue, lease
    if state == "checkpointed":
        it.broker.checkpoint([it.write(lease)])
        return task, queue, it.take_one(queue=queue) if it.claims(Capability.HANDOFF) else lease
    target = it.name(f"{name}-far") if state == "moved" else queue
    delay = it.later if state in _DELAYED else 0.0
    it.broker.release([it.write(lease, queue=None if target == queue else target, delay=delay)])
    return task, target, None


def _end(it: Scene, case: _Case) -> None:
    keep_for = LONG if it.claims(Capability.RECORDS) and case.end != "ack" else 0.0
    if case.end == "purge":
        it.broker.purge(case.queue)
    elif case.end == "cancel":
        it.broker.cancel([case.task.id], keep_for=keep_for)
    else:
        by_id = case.task.id if case.state in _DELAYED else None
        lease = case.lease or it.take_one(queue=case.queue, task_id=by_id)
        it.broker.ack([it.write(lease, seq=2)], keep_for=keep_for)


def _is_with(it: Scene, owner: Envelope, key: str | None) -> bool:
    """Whether another task with this key is refused, and answered with the owner's id. Into another queue."""
    another = it.envelope(queue=it.fatal, unique=key)
    return dict(it.broker.enqueue([another])) == {another.id: owner.id}


# -- what frees no key: each brings a task whose key must be taken --------------------------------------


def _stored(it: Scene, name: str) -> Envelope:
    queue = it.name(name)
    task = it.envelope(queue=queue, unique=f"{queue} key")
    it.broker.enqueue([task])
    return task


def _next(it: Scene, before: Envelope) -> Envelope:
    """The next task with this key."""
    task = it.envelope(queue=before.queue, unique=before.unique)
    it.broker.enqueue([task])
    return task


def _after_a_lost_ack(it: Scene) -> Envelope:
    task, dead = _stored(it, "lost-ack"), it.client()
    former = it.take_one(by=dead, queue=task.queue, lease_for=it.lease)
    it.abandon([former], by=dead)
    it.take_one(queue=task.queue, wait=it.grace)
    it.broker.ack([it.write(former)], keep_for=0)
    return task


def _after_a_purge(it: Scene) -> Envelope:
    task = _stored(it, "purge")
    it.take_one(queue=task.queue)
    it.broker.purge(task.queue)
    return task


def _after_a_repeated_ack(it: Scene) -> Envelope:
    before = _stored(it, "repeated-ack")
    write = it.write(it.take_one(queue=before.queue))
    it.broker.ack([write], keep_for=0)
    task = _next(it, before)
    it.broker.ack([write], keep_for=0)
    return task


def _after_a_repeated_cancel(it: Scene) -> Envelope:
    before = _stored(it, "repeated-cancel")
    keep_for = LONG if it.claims(Capability.RECORDS) else 0.0
    it.broker.cancel([before.id], keep_for=keep_for)
    task = _next(it, before)
    it.broker.cancel([before.id], keep_for=keep_for)
    return task


def _after_a_forgotten_record(it: Scene) -> Envelope:
    before = _stored(it, "forgotten")
    it.broker.ack([it.write(it.take_one(queue=before.queue))], keep_for=BRIEFLY)
    task = _next(it, before)
    it.eventually(
        lambda: not it.broker.get([before.id]), f"the end of a record that is kept for {BRIEFLY:g} s"
    )
    return task
