"""Rows: retries. A reentrant step is tried as often and as late as its place in its chain says; no other ever is."""

from __future__ import annotations

import time
from collections.abc import Callable

from gotasks import ArgsMap, reentrant, step
from gotasks.broker import Capability
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.kit.engine import Engine
from gotasks.conformance.kit.handlers import Calls
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene
from gotasks.events import Event, TaskBuried


@row("FTL-07", engine=True)
def a_reentrant_step_is_retried_exactly_as_often_as_it_says(it: Scene) -> None:
    """Given reentrant handlers that always fail, when a worker runs them, one with `max_times=2` is called three times,
    `sleepy_ms` apart, and its task goes to the fatal queue right after the last; one with `max_times=0` is called once.
    """
    engine = Engine.on(it)
    sleep = 0.3
    # Several at once: a machine that is busy for a moment delays them, but hardly each of them.
    retried = [Calls() for _ in range(3)]
    once = Calls()
    tasks = [engine.enqueue(reentrant(each.handler, max_times=2, sleepy_ms=sleep * 1000)) for each in retried]
    single = engine.enqueue(reentrant(once.handler, max_times=0, sleepy_ms=sleep * 1000))
    buried_at: dict[str, float] = {}

    def note(fact: Event) -> None:
        if isinstance(fact, TaskBuried):
            buried_at[fact.task_id] = time.monotonic()

    engine.app.events.listen(note)
    engine.run(*tasks, single)
    expect_equal(
        [len(each.at) for each in [*retried, once]],
        [3, 3, 3, 1],
        "calls of handlers with max_times=2, and of one with max_times=0",
    )
    pauses = [pause for each in retried for pause in each.pauses]
    expect(
        min(pauses) >= sleep * 0.99 and min(pauses) < 3 * sleep,
        f"between two tries sleepy_ms={sleep * 1000:g} have to pass; it was {min(pauses) * 1000:.0f} ms and more",
    )
    last = min(buried_at[task.id] - calls.ended for task, calls in zip(tasks, retried, strict=True))
    expect(
        last < sleep * 0.9,
        f"after the last try the task was buried only {last:.2f} s later: nobody waits for that",
    )


@row("CHN-07", needs=Capability.DELAY, engine=True)
def a_long_sleep_before_a_retry_leaves_the_slot_to_others(it: Scene) -> None:
    """Given a worker with one slot and a reentrant handler that asks for more than a second before its retry, when its
    first try has failed, the task is put back with that delay, another one runs meanwhile, and the retry comes when
    the delay is over, with its tries counted on.
    """
    engine = Engine.on(it)
    sleep = 1.05
    order: list[str] = []
    calls = Calls()

    def slow(args: ArgsMap) -> ArgsMap:
        order.append("slow")
        return calls.handler(args)

    def other(args: ArgsMap) -> None:
        order.append("other")

    engine.declare(max_limit=1)
    task = engine.enqueue(reentrant(slow, max_times=1, sleepy_ms=sleep * 1000))
    beside = engine.enqueue(other)
    engine.run(task, beside)
    expect_equal(
        order, ["slow", "other", "slow"], "what ran on the one slot while a handler waited for its only retry"
    )
    expect(
        calls.pauses[0] >= sleep - 0.05,
        f"a retry that was to come after {sleep:g} s came after {calls.pauses[0]:.2f} s",
    )


@row("CHN-08", engine=True)
def a_handler_has_the_retries_of_its_place_in_each_chain(it: Scene) -> None:
    """Given one function that is reentrant with different options in two jobs and plain in a third, and another one of
    the same name, when a worker runs a task of each, every job's own options hold.
    """
    engine = Engine.on(it)
    calls: dict[str, int] = {}

    def failing(args: ArgsMap) -> None:
        calls[args["job"]] = calls.get(args["job"], 0) + 1
        raise OSError("again")

    def namesake(args: ArgsMap) -> None:
        failing(args)

    places: dict[str, Callable[..., object]] = {
        "twice": reentrant(failing, max_times=1, sleepy_ms=1),
        "plain": failing,
        "thrice": reentrant(failing, max_times=2, sleepy_ms=1),
        "namesake": step(reentrant(namesake, max_times=3, sleepy_ms=1), name=failing.__qualname__),
    }
    engine.declare()
    jobs = [engine.app.register(name, handler) for name, handler in places.items()]
    engine.run(*(engine.app.queue(it.queue).enqueue(job, {"job": job.name}) for job in jobs))
    expect_equal(
        calls,
        {"twice": 2, "plain": 1, "thrice": 3, "namesake": 4},
        "calls of a handler that always fails, in each job by its own max_times",
    )
