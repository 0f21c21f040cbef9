"""Rows: doubt. A step that isn't reentrant is never started twice; where that can't be known, a person decides."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import msgspec

from gotasks import codec
from gotasks.broker import Broker, Capability, Lease, Write
from gotasks.conformance.expect import Nonconformance, expect, expect_equal
from gotasks.conformance.kit.crew import Crew
from gotasks.conformance.kit.wrapped import WrappedBroker
from gotasks.conformance.row import row
from gotasks.conformance.rows.crashes import answers_to, start_zombies
from gotasks.conformance.scene import LONG, Scene
from gotasks.errors import BrokerUnavailable, InDoubt

#: Around the first of two steps that aren't reentrant, and around the ack that carries the second one's result.
_POINTS = (
    "acquired:1",
    "admitted:1",
    "in_step:1",
    "before_extend:1",
    "step_done:1",
    "before_checkpoint:1",
    "after_checkpoint:1",
    "checkpointed:1",
    "step_done:2",
    "before_ack:1",
    "after_ack:1",
)

#: Those that are enough for a first look: each leaves another state behind.
_QUICK_POINTS = ("acquired:1", "in_step:1", "before_checkpoint:1", "after_checkpoint:1", "before_ack:1")


@row("NRE-01", engine=True, processes=True)
def a_step_that_is_not_reentrant_is_never_started_twice(it: Scene) -> None:
    """Given a chain of two steps that aren't reentrant, and a worker that is killed at one of the moments around them
    (each moment in turn), when another worker gets the task, it starts none of them a second time: the task is done, or
    lies in the fatal queue in doubt at the step that may have been started.
    """
    points = _QUICK_POINTS if it.quick else _POINTS
    queues = {it.name(point.replace(":", "-")): point for point in points}
    crew = Crew.of(it, *queues)
    for queue, point in queues.items():
        # A heart beats only while a step runs: that one waits for its death.
        gate = {"gate": str(crew.gate("shut"))} if "extend" in point else {}
        crew.enqueue("pair", queue=queue, **gate)
    victims = [crew.start(queue, killpoint=point, limit=1) for queue, point in queues.items()]
    for victim in victims:
        victim.killed()
    crew.start(lease=LONG)
    crew.settled()
    account = crew.account()
    doubts = sum(end.status == "fatal" for end in account.ends.values())
    it.figures.update(kills=len(points), in_doubt=doubts, started_twice=len(account.doubled()))
    expect_equal(
        account.problems(), [], "what is wrong after a kill at each moment around a step that isn't reentrant"
    )


@row("NRE-02", engine=True, processes=True)
def a_step_that_still_runs_after_its_lease_is_in_doubt(it: Scene) -> None:
    """Given workers that stand still inside a step that isn't reentrant, and right before its checkpoint, its ack and
    its burial, when their leases are over, no other worker starts the step: the task is in doubt. When they go on, what
    they write is lost, and the task stays as it is.
    """
    jobs = {
        "in_step": "late-plain",
        "before_checkpoint": "late-plain",
        "before_ack": "late-plain-last",
        "before_release": "late-plain",
    }
    queues = {it.name(point): point for point in jobs}
    crew = Crew.of(it, *queues)
    for queue, point in queues.items():
        crew.enqueue(jobs[point], queue=queue, fails=point == "before_release")
    zombies = start_zombies(it, crew, {queue: f"{point}:1:stop" for queue, point in queues.items()})
    crew.start(lease=LONG)
    crew.settled()
    buried = crew.ends()
    expect_equal(
        {(end.status, end.outcome, end.step) for end in buried.values()},
        {("fatal", "in_doubt", "late")},
        "where the tasks are whose workers stand still, why, and at which step",
    )
    for zombie in zombies:
        zombie.thaw()
    lost = answers_to(crew, zombies, "lost")
    expect_equal(
        lost, set(crew.expected), "the tasks of which their old holders have learnt that they are lost"
    )
    crew.settled()
    expect_equal(crew.ends(), buried, "the tasks in the fatal queue after the late writes")
    expect_equal(crew.problems(), [], "what is wrong after the late writes of workers that stood still")


class _Unanswered(WrappedBroker):
    """Its checkpoints are carried out, and their replies are lost, until they are let through."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self.sent = 0
        self.answered = threading.Event()

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().checkpoint(writes)
        self.sent += 1
        if not self.answered.is_set():
            raise BrokerUnavailable("the reply is lost")
        return lost


@row("NRE-03", engine=True)
def the_next_step_waits_until_its_checkpoint_is_confirmed(it: Scene) -> None:
    """Given a checkpoint that the server has carried out and whose reply is lost, the next step, which isn't reentrant,
    isn't started; the checkpoint is sent again as it was, and once it is answered the step is started, once.
    """
    crew = Crew.of(it)
    broker = _Unanswered(it.client())
    crew.app.use_broker(broker)
    task = crew.enqueue("pair", ms=1)
    with crew.here(limit=1):
        it.eventually(lambda: broker.sent >= 3, "a checkpoint without an answer is sent again")
        early = crew.starts(task)
        broker.answered.set()
        it.eventually(
            lambda: len(crew.starts(task)) > 1, "the next step is started once its checkpoint is confirmed"
        )
        crew.settled()
    expect_equal(
        (early, crew.starts(task)),
        ([0], [0, 1]),
        "the steps that were started before the checkpoint was answered, and in the end",
    )


@row("NRE-04", engine=True, processes=True)
def a_step_that_was_checkpointed_is_not_in_doubt(it: Scene) -> None:
    """Given a step that isn't reentrant and was checkpointed, when the worker is killed in the next step, which is,
    then only that one is run again, and the task is done: nothing is in doubt.
    """
    crew = Crew.of(it)
    crew.enqueue("plain-then-reentrant")
    crew.start(killpoint="in_step:2").killed()
    crew.start(lease=LONG)
    crew.settled()
    expect_equal(
        crew.problems(), [], "what is wrong after a kill in the step behind one that isn't reentrant"
    )


@row("NRE-05", engine=True)
def a_task_in_doubt_is_resumed_by_force_only(it: Scene) -> None:
    """Given a task in doubt, when a person resumes it without force, that is refused and the task stays where it is;
    with force it goes on at the step in doubt, with the args that it had, and no completed step is run again.
    """
    crew = Crew.of(it)
    task = crew.enqueue("gated-plain")
    _die_at_step_one(it)
    with crew.here():
        crew.settled()
    refused = False
    try:
        crew.app.fatal.retry(task)
    except InDoubt:
        refused = True
    expect(refused, "a task in doubt was resumed without force")
    expect_equal(crew.ends()[task].step, "late", "the step in doubt, of a task that wasn't resumed")
    crew.app.fatal.retry(task, force=True)
    with crew.here():
        crew.until(lambda history: history.find("done"), "the end of a task that was resumed by force")
    expect_equal(crew.starts(task), [1, 2], "the steps that were started after a resume by force")


def _die_at_step_one(it: Scene) -> None:
    """Do as a worker that has completed the first step of the only task, and dies in the second."""
    holder = it.client()
    lease = it.take_one(by=holder, lease_for=it.lease)
    record = codec.decode(lease.envelope.body)
    args = codec.encode_args({**codec.decode_args(record.args_map), "trail": [0]})
    body = codec.encode(msgspec.structs.replace(record, args_map=args, current_handler_index=1))
    if holder.checkpoint([it.write(lease, body)]):
        raise Nonconformance("a checkpoint right after acquire was lost")
    leases: list[Lease] = [lease]
    if it.claims(Capability.HANDOFF):
        leases = [it.take_one(by=holder, lease_for=it.lease)]
    it.abandon(leases, by=holder)


@row("NRE-06", engine=True)
def a_handler_that_raises_is_not_retried_unless_it_is_reentrant(it: Scene) -> None:
    """Given a chain whose first step may be retried and whose second isn't reentrant, when the second raises, it isn't
    called again: the task lies in the fatal queue as failed, at that step, with the args that it was given.
    """
    crew = Crew.of(it)
    task = crew.enqueue("failing")
    with crew.here():
        crew.settled()
    expect_equal(crew.starts(task), [0, 1], "the steps that were started")
    found = crew.ends()[task]
    seen = (found.status, found.outcome, found.step, (found.args or {}).get("trail"))
    expect_equal(
        seen, ("fatal", "failed", "failing", [0]), "where the task is, why, at which step, with what trail"
    )
