"""The engine: a chain of handlers runs, step by step, with the args map of each going to the next."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from functools import partial
from typing import Any, TypedDict

import attrs
import msgspec
import pydantic
import pytest
import typing_extensions

from gotasks import ArgsMap, context, reentrant, step
from gotasks.broker import Capability
from gotasks.events import Checkpointed, StepDone, TaskStarted, TaskSucceeded
from gotasks.task import Outcome
from tests.backends.engine import QUEUE, Engine


def test_a_chain_of_plain_and_async_handlers_runs_in_order(engine: Engine) -> None:
    def first(args: ArgsMap) -> ArgsMap:
        return {**args, "seen": [*args["seen"], "first"]}

    async def second(args: ArgsMap) -> ArgsMap:
        await asyncio.sleep(0)
        return {**args, "seen": [*args["seen"], "second"]}

    def third(args: ArgsMap) -> ArgsMap:
        return {"seen": [*args["seen"], "third"]}

    task = engine.enqueue(first, second, reentrant(third), engine.keep, args={"seen": [], "order": 42})
    engine.run()

    assert engine.result(task) == {"seen": ["first", "second", "third"]}
    names = [fact.step.rpartition(".")[2] for fact in engine.watch.all(StepDone, task)]
    assert names == ["first", "second", "third", "keep"]
    assert len(engine.watch.all(Checkpointed, task)) == 3  # none after the last: its result goes into the ack
    deliveries = 4 if Capability.HANDOFF in engine.app.capabilities else 1
    assert len(engine.watch.all(TaskStarted, task)) == deliveries


def test_none_lets_the_map_go_on_with_what_the_handler_did_to_it(engine: Engine) -> None:
    def untouched(args: ArgsMap) -> None:
        return None

    def changed(args: ArgsMap) -> None:
        args["by"] = "changed"

    task = engine.enqueue(untouched, changed, engine.keep, args={"order": 42})
    engine.run()
    assert engine.result(task) == {"order": 42, "by": "changed"}


def test_whole_numbers_stay_whole_however_large(engine: Engine) -> None:
    """In the Go library they became float64: ids above 2**53 changed."""
    numbers = [2**53 + 1, -(2**63), 2**64, 10**40]

    def check(args: ArgsMap) -> None:
        assert args["numbers"] == numbers

    task = engine.enqueue(check, engine.keep, args={"numbers": numbers})
    engine.run()
    assert engine.result(task) == {"numbers": numbers}


def test_the_original_args_map_isnt_touched_by_what_the_steps_do(engine: Engine) -> None:
    """In the Go library it was the same object."""

    def change(args: ArgsMap) -> None:
        args["list"].append(1)
        args["new"] = True

    def fail(args: ArgsMap) -> None:
        raise ValueError("no")

    task = engine.enqueue(change, fail, args={"list": []})
    engine.run()
    record = engine.buried(task).task
    assert record is not None
    assert (bytes(record.original_args_map), bytes(record.args_map)) == (
        b'{"list":[]}',
        b'{"list":[1],"new":true}',
    )


# -- typed handlers -----------------------------------------------------------------------------


@dataclasses.dataclass
class DataOrder:
    order: int
    tags: list[str] = dataclasses.field(default_factory=list)


class StructOrder(msgspec.Struct):
    order: int
    tags: list[str] = []


@attrs.define
class AttrsOrder:
    order: int
    tags: list[str] = attrs.field(factory=list)


class ModelOrder(pydantic.BaseModel):
    order: int
    tags: list[str] = []


class DictOrder(TypedDict):
    order: int
    tags: list[str]


def data(order: DataOrder) -> DataOrder:
    assert type(order) is DataOrder
    return dataclasses.replace(order, tags=["data"])


def struct(order: StructOrder) -> StructOrder:
    assert type(order) is StructOrder
    return StructOrder(order.order, [*order.tags, "struct"])


async def attr(order: AttrsOrder) -> AttrsOrder:
    assert type(order) is AttrsOrder
    return AttrsOrder(order.order, [*order.tags, "attrs"])


def model(order: ModelOrder) -> ModelOrder:
    assert type(order) is ModelOrder
    return ModelOrder(order=order.order, tags=[*order.tags, "model"])


def typed_dict(order: DictOrder) -> DictOrder:
    return {"order": order["order"], "tags": [*order["tags"], "dict"]}


def test_a_handler_may_take_and_return_an_object(engine: Engine) -> None:
    task = engine.enqueue(data, struct, attr, model, typed_dict, engine.keep, args={"order": 42})
    engine.run()
    assert engine.result(task) == {"order": 42, "tags": ["data", "struct", "attrs", "model", "dict"]}


class ExtendedOrder(typing_extensions.TypedDict):
    order: int


def extended(order: ExtendedOrder) -> None:
    assert order["order"] == 42


def test_the_typed_dict_of_typing_extensions_is_one_too(local: Engine) -> None:
    task = local.enqueue(extended, local.keep, args={"order": 42})
    local.run()
    assert local.result(task) == {"order": 42}


def test_a_task_may_be_enqueued_with_an_object(engine: Engine) -> None:
    task = engine.enqueue(model, engine.keep, args=DataOrder(7, ["sent"]))
    engine.run()
    assert engine.result(task) == {"order": 7, "tags": ["sent", "model"]}


def test_none_from_a_typed_handler_lets_the_map_go_on_as_it_was(engine: Engine) -> None:
    def look(order: DataOrder) -> None:
        order.order = 0

    task = engine.enqueue(look, engine.keep, args={"order": 42, "more": "kept"})
    engine.run()
    assert engine.result(task) == {"order": 42, "more": "kept"}


@pytest.mark.parametrize("handler", [data, struct, attr, model, typed_dict])
def test_args_that_dont_fit_the_annotation_are_a_clear_failure_and_the_handler_isnt_called(
    local: Engine, handler: Callable[..., Any]
) -> None:
    task = local.enqueue(reentrant(handler, sleepy_ms=1), args={"order": "many"})
    local.run()
    failure = local.failure(task)
    assert (failure.outcome, failure.in_doubt) == (Outcome.FAILED, False)
    assert "order" in failure.error
    assert handler.__name__ in failure.error
    assert len(local.watch.all(StepDone, task)) == 1  # the same args would misfit again: not retried


@dataclasses.dataclass
class Receipt:
    at: datetime
    amounts: tuple[float, ...]


def test_what_json_has_no_type_for_becomes_text_and_comes_back_by_the_class(engine: Engine) -> None:
    moment = datetime(2026, 2, 3, 4, 5, 6, tzinfo=timezone.utc)
    seen: list[Receipt] = []

    def write(args: ArgsMap) -> Receipt:
        return Receipt(moment, (1.5, 2.0))

    def read(receipt: Receipt) -> None:
        seen.append(receipt)

    task = engine.enqueue(write, read, engine.keep)
    engine.run()
    assert seen == [Receipt(moment, (1.5, 2.0))]
    assert engine.result(task) == {"at": "2026-02-03T04:05:06Z", "amounts": [1.5, 2.0]}


# -- what a handler may be ----------------------------------------------------------------------


class Multiply:
    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, args: ArgsMap) -> ArgsMap:
        return {"n": args["n"] * self.by}

    def method(self, args: ArgsMap) -> ArgsMap:
        return {"n": args["n"] * self.by}


async def add_later(args: ArgsMap, extra: int = 0) -> ArgsMap:
    return {"n": args["n"] + extra}


def returns_a_coroutine(args: ArgsMap) -> Awaitable[ArgsMap]:
    return add_later(args, extra=5)


def test_methods_objects_partials_lambdas_and_functions_that_return_an_awaitable_are_handlers(
    engine: Engine,
) -> None:
    task = engine.enqueue(
        Multiply(2).method,
        step(Multiply(3), name="object"),
        step(partial(add_later, extra=100), name="partial"),
        step(lambda args: {"n": args["n"] + 1}, name="lambda"),
        returns_a_coroutine,
        engine.keep,
        args={"n": 1},
    )
    engine.run()
    assert engine.result(task) == {"n": 1 * 2 * 3 + 100 + 1 + 5}


def test_one_function_may_be_reentrant_in_one_job_and_plain_in_another(engine: Engine) -> None:
    """The Go library kept the options by function: closures and partials collided."""
    calls: list[str] = []

    def fail(args: ArgsMap) -> None:
        calls.append(args["as"])
        raise OSError("no")

    careful = engine.enqueue(reentrant(fail, max_times=2, sleepy_ms=1), args={"as": "reentrant"})
    plain = engine.enqueue(fail, args={"as": "plain"})
    engine.run()

    assert (calls.count("reentrant"), calls.count("plain")) == (3, 1)
    assert engine.failure(careful).outcome is engine.failure(plain).outcome is Outcome.FAILED


def test_a_handler_can_ask_for_its_task(engine: Engine) -> None:
    seen: list[tuple[str, str, str, int, int, bool]] = []

    def ask(args: ArgsMap) -> None:
        now = context.current()
        seen.append((now.task_id, now.queue, now.job, now.step_index, now.tries, now.revoked))
        if now.tries == 0 and now.step_index == 1:
            raise OSError("once")

    async def ask_there(args: ArgsMap) -> None:
        ask(args)

    task = engine.enqueue(ask, reentrant(ask_there, sleepy_ms=1), step(ask, name="last"))
    engine.run()
    expected = [(0, 0), (1, 0), (1, 1), (2, 0)]
    assert seen == [(task.id, QUEUE, "job-0", index, tries, False) for index, tries in expected]


def test_there_is_no_task_to_ask_for_outside_a_handler(engine: Engine) -> None:
    def run_then_ask() -> None:
        engine.run()
        with pytest.raises(LookupError):
            context.current()

    engine.enqueue(engine.keep)
    contextvars.Context().run(run_then_ask)


def test_async_handlers_of_one_worker_run_side_by_side(worked: Engine) -> None:
    waiting: list[asyncio.Event] = []

    async def meet(args: ArgsMap) -> None:
        waiting.append(asyncio.Event())
        if len(waiting) == 3:
            for each in waiting:
                each.set()
        await waiting[0].wait()

    queue = worked.app.queue(QUEUE, max_limit=3)
    queue.enqueue_many(worked.app.register("meet", meet), [{}] * 3)
    worked.run()
    assert len(worked.watch.all(TaskSucceeded)) == 3


# -- enqueue and register from a handler --------------------------------------------------------


def test_a_handler_may_enqueue(engine: Engine) -> None:
    def child(args: ArgsMap) -> None:
        engine.keep(args)

    engine.app.register("child", child)
    children: list[str] = []

    def parent(args: ArgsMap) -> None:
        children.append(engine.app.queue(QUEUE).enqueue("child", {"of": args["name"]}).id)

    engine.enqueue(parent, args={"name": "parent"})
    engine.run()
    assert [engine.kept[each] for each in children] == [{"of": "parent"}]


def test_register_inside_a_handler_doesnt_deadlock(engine: Engine) -> None:
    """The Go library held its read lock while handlers ran."""

    def registers(args: ArgsMap) -> None:
        engine.app.register("late", engine.keep)

    task = engine.enqueue(registers, engine.keep)
    engine.run()
    assert engine.result(task) == {}
    assert "late" in engine.app.jobs


def test_an_idle_chain_of_one_step_needs_no_checkpoint(engine: Engine) -> None:
    task = engine.enqueue(engine.keep, args={"order": 1})
    engine.run()
    assert engine.result(task) == {"order": 1}
    assert engine.watch.all(Checkpointed, task) == []
