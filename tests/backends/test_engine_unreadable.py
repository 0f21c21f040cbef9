"""The engine: what can't be run ends in the fatal queue with a reason, and the worker goes on (guarantee G8)."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from gotasks import ArgsMap, reentrant
from gotasks.broker import Envelope
from gotasks.errors import ConfigurationError
from gotasks.events import TaskSucceeded
from gotasks.handle import TaskHandle
from gotasks.task import Outcome
from tests.backends.engine import QUEUE, Engine


def lambda_that_fails(args: ArgsMap) -> None:
    raise ValueError(args["n"])


def test_an_unknown_job_goes_to_fatal_under_its_name(engine: Engine) -> None:
    """In the Go library it was a panic for each task, and the cause had no name."""
    engine.app.external("mailing")
    task = engine.app.queue(QUEUE).enqueue("mailing", {"order": 42})
    good = engine.enqueue(engine.keep)
    engine.run()
    failure = engine.failure(task)
    assert failure.outcome is Outcome.UNKNOWN_JOB
    assert "'mailing'" in failure.error
    assert engine.result(good) == {}

    engine.app.register("mailing", engine.keep)
    engine.app.fatal.retry(task.id)
    engine.run()
    assert engine.result(task) == {"order": 42}


def changed_chain(engine: Engine) -> TaskHandle:
    """A task whose job has other steps by the time that it runs."""
    before = Engine(engine.broker)
    before.app.register("renamed", lambda_that_fails, before.keep)
    task = before.app.queue(QUEUE).enqueue("renamed", {"n": 1})
    engine.app.register("renamed", engine.keep, lambda_that_fails)
    engine.app.queue(QUEUE)
    return TaskHandle(engine.app, task.id)


def test_a_chain_that_changed_under_a_task_goes_to_fatal_and_needs_a_step_to_go_on_at(engine: Engine) -> None:
    task = changed_chain(engine)
    engine.run()
    failure = engine.failure(task)
    assert failure.outcome is Outcome.CHAIN_CHANGED
    assert "lambda_that_fails → Engine.keep; now they are Engine.keep → lambda_that_fails" in failure.error
    with pytest.raises(ConfigurationError, match="--from-step"):
        engine.app.fatal.retry(task.id)
    engine.app.fatal.retry(task.id, from_step="Engine.keep")
    engine.run()
    assert engine.kept[task.id] == {"n": 1}


GARBAGE = {
    "no JSON": b"\x00\xff garbage",
    "empty": b"",
    "other JSON": b'{"hello": [1, 2, 3]}',
    "a list": b"[]",
    "args that are no map": (
        b'{"task_id":"x","created_at":"","updated_at":"","queue_name":"orders","job_name":"job-0",'
        b'"args_map":[1],"current_handler_index":0,"original_args_map":{}}'
    ),
    "from the future": (
        b'{"v":99,"task_id":"x","created_at":"","updated_at":"","queue_name":"orders","job_name":"job-0",'
        b'"args_map":{},"current_handler_index":0,"original_args_map":{}}'
    ),
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", list(GARBAGE))
def test_garbage_goes_to_fatal_as_it_came_and_the_worker_goes_on(engine: Engine, name: str) -> None:
    """The Go library panicked after the pop: the whole process died, the task was gone."""
    good = engine.enqueue(engine.keep)
    engine.broker.enqueue([Envelope(id="bad", queue=QUEUE, body=GARBAGE[name])])
    engine.run()
    assert engine.result(good) == {}
    found = engine.app.fatal.show("bad")
    assert found.failure.outcome is Outcome.UNREADABLE
    assert found.failure.error
    assert found.task is not None
    assert found.task.raw is not None
    assert base64.b64decode(found.task.raw) == GARBAGE[name]

    assert engine.app.fatal.retry("bad") == QUEUE  # as it came, for a worker that can read it
    (lease,) = engine.broker.acquire(QUEUE, limit=1, wait=1, lease_for=30)
    assert lease.envelope.body == GARBAGE[name]


def test_garbage_that_cant_be_wrapped_goes_to_fatal_byte_by_byte(engine: Engine) -> None:
    large = b"x" * 1_000_000
    engine.broker.enqueue([Envelope(id="bad", queue=QUEUE, body=large)])
    engine.app.register("some", engine.keep)
    engine.app.queue(QUEUE)
    engine.run()
    found = engine.app.fatal.show("bad")
    assert (found.body, found.task, found.failure.outcome) == (large, None, Outcome.UNREADABLE)
    with pytest.raises(ConfigurationError, match="drop it"):
        engine.app.fatal.retry("bad")
    engine.app.fatal.drop("bad")
    assert engine.app.fatal.list() == []


@pytest.mark.parametrize("index", [-1, 3, 10**6])
def test_an_index_outside_the_chain_goes_to_fatal(engine: Engine, index: int) -> None:
    engine.app.register("two", lambda_that_fails, engine.keep)
    body = (
        b'{"task_id":"x","created_at":"","updated_at":"","queue_name":"orders","job_name":"two",'
        b'"args_map":{},"current_handler_index":%d,"original_args_map":{}}' % index
    )
    engine.broker.enqueue([Envelope(id="x", queue=QUEUE, body=body)])
    engine.app.queue(QUEUE)
    engine.run()
    assert engine.app.fatal.show("x").failure.outcome is Outcome.UNREADABLE


def large_result(args: ArgsMap) -> ArgsMap:
    return {"large": "x" * 1_100_000}


@pytest.mark.parametrize("wrap", [lambda handler: handler, reentrant], ids=["plain", "reentrant"])
@pytest.mark.parametrize("last", [False, True])
def test_a_result_that_is_too_large_goes_to_fatal_with_the_args_before_the_step(
    engine: Engine, wrap: Callable[..., Callable[..., object]], last: bool
) -> None:
    handlers = [wrap(large_result)] if last else [wrap(large_result), engine.keep]
    task = engine.enqueue(*handlers, args={"order": 42})
    engine.run()
    found = engine.buried(task)
    assert found.failure.outcome is Outcome.REJECTED
    assert "1100" in found.failure.error
    assert found.failure.in_doubt is (wrap is not reentrant)  # it has run, and its result is nowhere
    assert found.task is not None
    assert bytes(found.task.args_map) == b'{"order":42}'
    assert engine.watch.all(TaskSucceeded, task) == []


def test_what_the_go_library_writes_is_run(engine: Engine) -> None:
    engine.app.register("from-go", engine.keep)
    engine.app.queue(QUEUE)
    body = (
        b'{"task_id":"go-1","created_at":"2021-01-01T00:00:00+08:00","updated_at":"2021-01-01T00:00:00+08:00",'
        b'"queue_name":"orders","job_name":"from-go","args_map":{"a":1.5},"current_handler_index":0,'
        b'"original_args_map":{"a":1.5},"result_log":""}'
    )
    engine.broker.enqueue([Envelope(id="go-1", queue=QUEUE, body=body)])
    engine.run()
    assert engine.kept == {"go-1": {"a": 1.5}}
