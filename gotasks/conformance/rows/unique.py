"""Rows: unique keys. One living task for each, whoever asks, and the next one as soon as that has ended."""

from __future__ import annotations

from functools import partial

from gotasks.broker import Capability
from gotasks.conformance.adapter import NotApplicable
from gotasks.conformance.expect import expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import LONG, Scene, ids_of

#: Keys that a pattern, a case-blind column or an id's place would mix up.
KEYS = [
    "",
    "a",
    "A",
    "a ",
    "ä",
    "a\u0308",
    "a%",
    "a_",
    "*",
    "order:1",
    "order:10",
    "{a}",
    "'",
    "\x00",
    "x" * 200,
    "x" * 201,
]


@row("UNQ-01", needs=Capability.UNIQUE)
def a_unique_key_has_one_living_task(it: Scene) -> None:
    """Given a task with a unique key that is ready, held, checkpointed, put back, delayed or moved, when
    another one with this key is enqueued, into whichever queue, it isn't stored, and its id is answered with
    that of the living one.
    """
    elsewhere, key = it.name("elsewhere"), it.name("key")
    first = it.envelope(unique=key)
    it.broker.enqueue([first])
    seen: dict[str, bool] = {}

    def second(when: str) -> None:
        for queue in (it.queue, elsewhere):
            again, other = it.envelope(unique=key, queue=queue), it.envelope(queue=queue)
            there = it.broker.enqueue([again, other][: it.limits.max_batch])
            seen[f"{when}, into {'its own' if queue == it.queue else 'another'} queue"] = there == {
                again.id: first.id
            }

    second("while it is ready")
    lease = it.take_one()
    second("while it is held")
    it.broker.checkpoint([it.write(lease, seq=1)])
    if it.claims(Capability.HANDOFF):
        (lease,) = [each for each in it.take_all(9) if each.envelope.id == first.id]
    second("after a checkpoint")
    it.broker.release([it.write(lease, seq=2, queue=it.fatal)])
    second("after a move")
    lease = it.take_one(queue=it.fatal)
    it.broker.release([it.write(lease, delay=it.later if it.claims(Capability.DELAY) else 0.0)])
    second("after a release")
    wrong = [when for when, right in seen.items() if not right]
    expect_equal(
        wrong, [], "when a second task with the same unique key wasn't answered with the id of the first"
    )
    leases = [lease for queue in (it.queue, elsewhere) for lease in it.drain(queue=queue)]
    keys = [each.envelope.unique for each in leases if each.envelope.unique is not None]
    expect_equal(keys, [], "unique keys of further tasks, which were stored though their key was taken")


@row("UNQ-02", needs=Capability.UNIQUE)
def the_end_of_a_task_frees_its_unique_key(it: Scene) -> None:
    """Given a task with a unique key, when it is acked (its record kept or not), purged or cancelled, then
    another one with this key is stored, once.
    """
    ends = (
        ["ack", "purge"]
        + ["ack, kept"] * it.claims(Capability.RECORDS)
        + ["cancel"] * it.claims(Capability.CANCEL)
    )
    answers: dict[str, tuple[bool, bool]] = {}
    for end in ends:
        queue = it.name(end.replace(", ", "-"))
        first, second, third = (it.envelope(queue=queue, unique=f"{queue} key") for _ in range(3))
        it.broker.enqueue([first])
        if end == "purge":
            it.broker.purge(queue)
        elif end == "cancel":
            it.broker.cancel([first.id], keep_for=LONG if it.claims(Capability.RECORDS) else 0.0)
        else:
            keep_for = LONG if end == "ack, kept" else 0.0
            it.broker.ack([it.write(it.take_one(queue=queue))], keep_for=keep_for)
        answers[end] = not it.broker.enqueue([second]), it.broker.enqueue([third]) == {third.id: second.id}
    wrong = [end for end, (stored, _) in answers.items() if not stored]
    expect_equal(wrong, [], "ends of a task after which its unique key is taken still")
    wrong = [end for end, (stored, known) in answers.items() if stored and not known]
    expect_equal(wrong, [], "ends of a task after which a second new task with its unique key is stored")


@row("UNQ-03", needs=Capability.UNIQUE)
def of_those_who_race_for_a_unique_key_one_wins(it: Scene) -> None:
    """Given six who enqueue a task with the same unique key at the same time, then one task is stored, and the
    others are told its id.
    """
    clients = [it.client() for _ in range(6)]
    for number in range(it.times(quick=20, full=300)):
        envelopes = [it.envelope(unique=f"{it.queue} {number}") for _ in clients]
        sends = [partial(client.enqueue, [each]) for client, each in zip(clients, envelopes, strict=True)]
        there = {key: value for answer in it.in_threads(*sends) for key, value in answer.items()}
        stored = ids_of(it.drain())
        right = {each.id: stored[0] for each in envelopes if each.id != stored[0]} if stored else {}
        expect_equal(len(stored), 1, "tasks that are stored, of six with the same unique key")
        expect_equal(there, right, "what those are told who came too late")


@row("UNQ-04", needs=Capability.UNIQUE)
def unique_keys_that_look_alike_are_different_ones(it: Scene) -> None:
    """Given unique keys of any text (empty, with signs, differing in case or in the last of many characters),
    then each has a task of its own, in one call as in many; a task without a key is none of theirs.
    """
    # Where others may be, their keys may be these.
    keys = KEYS if it.alone else [f"{it.queue} {key}" for key in KEYS]
    first = [it.envelope(unique=key) for key in keys]
    for each in first:
        it.broker.enqueue([each, it.envelope()][: it.limits.max_batch])
    again = [it.envelope(unique=key) for key in keys]
    there: dict[str, str] = {}
    for start in range(0, len(again), it.limits.max_batch):
        there |= it.broker.enqueue(again[start : start + it.limits.max_batch])
    right = {new.id: old.id for new, old in zip(again, first, strict=True)}
    wrong = [key for key, each in zip(keys, again, strict=True) if there.get(each.id) != right[each.id]]
    expect_equal(wrong, [], "unique keys of which a second task wasn't answered with the first one's id")


@row("UNQ-05", needs=Capability.UNIQUE)
def a_unique_key_twice_in_one_call_is_stored_once(it: Scene) -> None:
    """Given a call with two envelopes of the same unique key, then the first is stored, the second is answered
    with its id, and the others of the call are stored.
    """
    if it.limits.max_batch < 3:
        raise NotApplicable(f"limits.max_batch is {it.limits.max_batch}")
    one, two = (it.envelope(unique=it.name("key")) for _ in range(2))
    other = it.envelope()
    there = it.broker.enqueue([one, two, other])
    seen = dict(there), set(ids_of(it.drain()))
    right = {two.id: one.id}, {one.id, other.id}
    expect_equal(seen, right, "what an enqueue answers that holds a unique key twice, and what comes out")
