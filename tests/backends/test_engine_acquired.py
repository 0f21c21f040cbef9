"""The engine: AckWhen.ACQUIRED, at most once for a whole task."""

from __future__ import annotations

import threading

import pytest

from gotasks import AckWhen, ArgsMap, context, step
from gotasks.broker import Envelope
from gotasks.events import TaskBuried, TaskCrashed, TaskSucceeded
from gotasks.task import Outcome
from tests.backends.contract import eventually, stats
from tests.backends.engine import QUEUE, Engine, Gate


@pytest.mark.needs("RECORDS")
def test_ack_when_acquired_takes_a_task_out_of_the_broker_before_its_first_step(worked: Engine) -> None:
    seen: list[object] = []

    def look(args: ArgsMap) -> ArgsMap:
        seen.append((worked.app.stats(QUEUE), worked.broker.get([context.current().task_id])))
        return {"n": args["n"] + 1}

    task = worked.enqueue(look, worked.keep, args={"n": 1}, ack_when=AckWhen.ACQUIRED)
    with worked.app.worker():
        worked.watch.wait(TaskSucceeded, task)
    assert seen == [(stats(), {})]
    assert worked.kept == {task.id: {"n": 2}}


def test_ack_when_acquired_puts_what_fails_into_the_fatal_queue(worked: Engine) -> None:
    def fail(args: ArgsMap) -> None:
        raise ValueError("no")

    task = worked.enqueue(fail, args={"order": 42}, ack_when=AckWhen.ACQUIRED)
    with worked.app.worker():
        worked.watch.wait(TaskBuried, task)
    assert worked.failure(task).error == "ValueError: no"
    worked.app.fatal.retry(task.id)
    assert worked.app.stats(QUEUE) == stats(ready=1)


def test_ack_when_acquired_buries_what_it_cant_run_once(worked: Engine) -> None:
    """Such a task is still held when it is found out, so its lease has to be settled too."""
    worked.app.external("unknown")
    worked.app.register("some", worked.keep)
    queue = worked.app.queue(QUEUE, ack_when=AckWhen.ACQUIRED, lease=worked.short)
    task = queue.enqueue("unknown")
    worked.broker.enqueue([Envelope(id="bad", queue=QUEUE, body=b"bad")])
    worked.run(within=5)
    assert worked.failure(task).outcome is Outcome.UNKNOWN_JOB
    assert worked.app.fatal.show("bad").failure.outcome is Outcome.UNREADABLE
    assert len(worked.watch.all(TaskBuried)) == 2
    assert worked.watch.all(TaskCrashed) == []


def test_ack_when_acquired_runs_what_a_dead_worker_had_taken_but_not_acked(worked: Engine) -> None:
    """It was never begun: a step starts only after the ack."""
    task = worked.enqueue(worked.keep, ack_when=AckWhen.ACQUIRED, lease=worked.short)
    worked.crash()
    with worked.app.worker():
        worked.watch.wait(TaskSucceeded, task)
    assert worked.kept == {task.id: {}}


def test_ack_when_acquired_honours_a_timeout(worked: Engine) -> None:
    gate = Gate()
    task = worked.enqueue(step(gate.handler, timeout=0.2), worked.keep, ack_when=AckWhen.ACQUIRED)
    with worked.app.worker():
        try:
            worked.watch.wait(TaskBuried, task)
        finally:
            gate.open.set()
    assert worked.failure(task).outcome is Outcome.TIMED_OUT
    assert worked.kept == {}


def test_ack_when_acquired_gives_back_what_isnt_begun_at_a_stop(worked: Engine) -> None:
    gate = Gate()

    def first(args: ArgsMap) -> ArgsMap:
        gate.handler(args)
        return {"first": True}

    task = worked.enqueue(first, worked.keep, ack_when=AckWhen.ACQUIRED)
    worker = worked.app.worker()
    worker.start()
    eventually(lambda: gate.inside == 1, what="inside")
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    eventually(lambda: worker._stopping.is_set(), what="the stop")
    gate.open.set()
    stopping.join(20)
    assert worked.app.stats(QUEUE) == stats(ready=1)
    with worked.app.worker():
        worked.watch.wait(TaskSucceeded, task)
    assert worked.kept == {task.id: {"first": True}}
    assert gate.calls == 1
