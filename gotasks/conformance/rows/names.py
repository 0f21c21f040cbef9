"""Rows: names. Two names that the core allows are two names, however alike they look."""

from __future__ import annotations

from collections.abc import Sequence

from gotasks.broker import Envelope
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene

#: Queues and ids that become one text when they are joined, or are patterns, paths or a server's own words.
PAIRS = [
    ("a", "b-c"),
    ("a-b", "c"),
    ("a", "b_d"),
    ("a_b", "d"),
    ("a.b", "e"),
    ("ab", "null"),
    ("a.", "0"),
    ("a..b", "00"),
    ("..", "-"),
    (".", "--"),
    ("-", "_"),
    ("_", "__"),
    ("amq.direct", "ready"),
    ("null", "task"),
    ("0", "1e5"),
    ("ready", "0x1"),
    ("task", "a"),
]

#: What is one name to a server that folds case, reads numbers, or takes dots and dashes for blanks.
ALIKE = ["Q", "q", "QQ", "qQ", "Qq", "1", "01", "1-0", "1_0", "1e0", "-q", "q-", "_q", "q_", "I", "i"]

#: The longest that the core allows, in characters.
LONGEST_ID, LONGEST_QUEUE = 64, 128


@row("NAM-01")
def no_name_gets_into_another(it: Scene) -> None:
    """Given queues and ids that become the same text when they are joined, or that read as patterns, paths or
    words of a server, when each queue gets a task, it counts that task alone, and gives it with its own id and
    body.
    """
    sent = [_envelope(it, task_id, queue) for queue, task_id in PAIRS]
    for each in sent:
        it.broker.enqueue([each])
    queues = [*dict.fromkeys(each.queue for each in sent)]
    counts = {queue: it.broker.stats(queue).ready for queue in queues}
    wrong = [queue for queue in queues if counts[queue] not in (None, len(_of(queue, sent)))]
    expect(not wrong, f"stats counts other queues' tasks as well: {[(each, counts[each]) for each in wrong]}")
    for queue in queues:
        expect_equal(
            _taken(it, queue), _of(queue, sent), f"ids and bodies that come out of the queue {queue!r}"
        )


@row("NAM-02")
def names_that_look_alike_are_different_ones(it: Scene) -> None:
    """Given queues and ids that differ in case only, in a sign, in a leading zero, or in the last character of
    the longest that is allowed (64 for an id, 128 for a queue), then each is one of its own.
    """
    ids = [*ALIKE, *_longest(it, LONGEST_ID, "")]
    sent = [_envelope(it, each, "one") for each in ids]
    for each in sent:
        it.broker.enqueue([each])
    came, right = _taken(it, sent[0].queue), _of(sent[0].queue, sent)
    wrong = [task_id for task_id in right if came.get(task_id) != right[task_id]]
    expect(
        not wrong, f"tasks of one queue that don't come out by their own id and with their own body: {wrong}"
    )
    queues = [*ALIKE, *_longest(it, LONGEST_QUEUE, ".")]
    sent = [_envelope(it, f"in-{number}", queue) for number, queue in enumerate(queues)]
    for each in sent:
        it.broker.enqueue([each])
    for each in sent:
        expect_equal(
            _taken(it, each.queue), {each.id: each.body}, f"what comes out of the queue {each.queue!r}"
        )


def _envelope(it: Scene, task_id: str, queue: str) -> Envelope:
    body = f"{task_id} in {queue}".encode()
    if it.alone:
        return it.envelope(body, task_id=task_id, queue=queue)
    place = it.queue.partition(".")[0]
    queue = queue if queue.startswith(place) else it.name(queue)
    return it.envelope(body, task_id=task_id if task_id.startswith(place) else place + task_id, queue=queue)


def _longest(it: Scene, length: int, sign: str) -> list[str]:
    """Names of this length that differ in their last character."""
    start = it.name("").rstrip(".") + sign
    return [start + "x" * (length - len(start) - 1) + end for end in "aAb"]


def _of(queue: str, sent: Sequence[Envelope]) -> dict[str, bytes]:
    return {each.id: each.body for each in sent if each.queue == queue}


def _taken(it: Scene, queue: str) -> dict[str, bytes]:
    """All that a queue gives, by id."""
    return {lease.envelope.id: lease.envelope.body for lease in it.drain(queue=queue)}
