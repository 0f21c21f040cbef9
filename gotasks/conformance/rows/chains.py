"""Rows: chains. A task's map goes from step to step, whole and exact, whichever kind of checkpoint lies between."""

from __future__ import annotations

import json
from typing import Any

from gotasks import App, ArgsMap, TaskHandle, codec, reentrant, step
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.kit.engine import Engine
from gotasks.conformance.kit.handlers import Calls
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene
from gotasks.task import Outcome

#: A number that a float can't hold.
_EXACT = 2**53 + 1


@row("CHN-01", engine=True)
def a_chain_passes_its_map_from_step_to_step(it: Scene) -> None:
    """Given a chain of five handlers, one of which returns None, when a worker runs it, each is called once, in order,
    with what the one before returned (None: the map goes on as it is), and the task ends. Large whole numbers
    arrive as they were.
    """
    engine = Engine.on(it)
    order: list[str] = []

    def named(name: str, *, silent: bool = False) -> Any:
        def handler(args: ArgsMap) -> ArgsMap | None:
            order.append(name)
            args["steps"].append(name)
            return None if silent else {**args, "last": name}

        return step(handler, name=name)

    steps = [named("a"), named("b"), named("c", silent=True), named("d")]
    task = engine.enqueue(*steps, engine.keep, args={"order": _EXACT, "steps": []})
    engine.run(task)
    expect_equal(order, ["a", "b", "c", "d"], "the steps of a chain, in the order of their calls")
    expect_equal(
        engine.result(task),
        {"order": _EXACT, "steps": ["a", "b", "c", "d"], "last": "d"},
        "the args map at the end of a chain",
    )


@row("CHN-02", engine=True)
def a_chain_that_changed_under_its_task_goes_to_fatal(it: Scene) -> None:
    """Given a task that was enqueued when its job had other steps, when a worker meets it, none of them is called; the
    task lies in the fatal queue, both chains named. A person who says where resumes it there.
    """
    engine = Engine.on(it)
    calls: list[str] = []

    def charge(args: ArgsMap) -> None:
        calls.append("charge")

    before = App(engine.broker, fatal_queue=it.fatal)
    before.register("checkout", step(charge, name="charge"), step(engine.keep, name="mail"))
    engine.declare()
    old = before.queue(it.queue).enqueue("checkout", {"order": 42})
    engine.app.register("checkout", step(engine.keep, name="mail"), step(charge, name="charge"))
    task = TaskHandle(engine.app, old.id)
    engine.run(task)
    failure = engine.failure(task)
    expect_equal(
        (failure.outcome, calls, engine.kept),
        (Outcome.CHAIN_CHANGED, [], {}),
        "why the task is in the fatal queue, and what of its changed chain was called",
    )
    expect("charge → mail" in failure.error, f"the reason should name the chain as it was: {failure.error!r}")
    engine.app.fatal.retry(task.id, from_step="charge")
    engine.run(task)
    expect_equal((calls, engine.kept), (["charge"], {}), "what was called after a retry from the last step")


@row("CHN-04", engine=True)
def a_result_that_is_too_large_goes_to_fatal_with_what_was_there_before(it: Scene) -> None:
    """Given handlers that return more than a task may hold, at the end of a chain and before it, when a worker runs
    them, their tasks lie in the fatal queue with the args from before that step. One that isn't reentrant is in
    doubt there: it has run.
    """
    engine = Engine.on(it)

    def large(args: ArgsMap) -> ArgsMap:
        return {"large": "x" * engine.app.max_body}

    tasks = [
        engine.enqueue(large, args={"order": 42}),
        engine.enqueue(reentrant(large), engine.keep, args={"order": 42}),
    ]
    engine.run(*tasks, within=5)
    found = [engine.buried(task) for task in tasks]
    expect_equal(
        [(each.failure.outcome, each.failure.in_doubt) for each in found],
        [(Outcome.REJECTED, True), (Outcome.REJECTED, False)],
        "why too large a result is in the fatal queue, and whether it's in doubt (of a plain step, of a reentrant one)",
    )
    args = [codec.decode_args(each.task.args_map) for each in found if each.task is not None]
    expect_equal(args, [{"order": 42}] * 2, "the args maps of tasks whose results were too large")


@row("CKP-04", engine=True)
def what_a_handler_does_to_its_map_is_its_own_affair(it: Scene) -> None:
    """Given a reentrant handler that changes its map in place, deep inside, before it fails for the first time, when
    a worker runs it, the second try gets the map as the first did. The original args map, the queue's name and the
    moment of creation are at the end as they were when the task was enqueued.
    """
    engine = Engine.on(it)
    seen: list[str] = []

    def spoil(args: ArgsMap) -> ArgsMap:
        seen.append(repr(args))
        args["items"].append("spoilt")
        args["nested"]["deep"] = "spoilt"
        if len(seen) == 1:
            raise OSError("again")
        return args

    given = {"items": [1], "nested": {"deep": 1}}
    task = engine.enqueue(reentrant(spoil, sleepy_ms=1), Calls().handler, args=given)
    lease = it.take_one(by=engine.broker)
    stored = codec.decode(lease.envelope.body)
    engine.broker.release([it.write(lease, lease.envelope.body)])
    engine.run(task)
    expect_equal(seen, [repr(given)] * 2, "the maps that two tries of one step were given")
    record = engine.buried(task).task
    assert record is not None
    expect_equal(
        (json.loads(bytes(record.original_args_map)), record.queue_name, record.created_at),
        (given, it.queue, stored.created_at),
        "the original args map, the queue's name and the moment of creation, after two steps",
    )
