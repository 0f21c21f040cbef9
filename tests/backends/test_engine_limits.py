"""The engine: how many handlers run at once, for how long, and what the options of a queue do (guarantee G6)."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from gotasks import App, ArgsMap, context, reentrant, step
from gotasks.errors import ConfigurationError
from gotasks.events import (
    QueueMeasured,
    StepDone,
    StepRetried,
    TaskBuried,
    TaskReleased,
    TaskStarted,
    TaskSucceeded,
)
from gotasks.settings import QueueOptions
from gotasks.task import Outcome
from tests.backends.contract import eventually, stats
from tests.backends.engine import QUEUE, Engine, Gate


@pytest.mark.parametrize("limit", [1, 3])
def test_at_most_max_limit_handlers_run_at_once_and_as_many_do(worked: Engine, limit: int) -> None:
    gate = Gate()
    job = worked.app.register("gate", gate.handler)
    worked.app.queue(QUEUE, max_limit=limit).enqueue_many(job, [{}] * 12)
    with worked.app.worker():
        eventually(lambda: gate.inside == limit, what="all slots taken")
        assert worked.app.stats(QUEUE).leased in (limit, None)  # it takes no more than it can run
        gate.open.set()
        worked.watch.wait(TaskSucceeded, count=12)
    assert gate.most == limit


def test_the_options_of_app_queue_reach_the_worker(local: Engine) -> None:
    """In the Go library the worker made a queue of its own, with the defaults."""
    gate = Gate()
    job = local.app.register("gate", gate.handler)
    local.app.queue(QUEUE, max_limit=2, monitor_interval=0.05, lease=0.3).enqueue_many(job, [{}] * 5)
    worker = local.app.worker()
    assert worker.queues == {QUEUE: QueueOptions(max_limit=2, monitor_interval=0.05, lease=0.3)}
    with worker:
        eventually(lambda: gate.inside == 2, what="two inside")
        assert worker.in_flight(QUEUE) == 2
        local.watch.wait(QueueMeasured, count=4)
        gate.open.set()
        local.watch.wait(TaskSucceeded, count=5)
    assert gate.most == 2


def test_the_environment_overrides_what_the_app_declares(
    local: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.app.register("job", local.keep)
    local.app.queue(QUEUE, max_limit=2, lease=30)
    monkeypatch.setenv("GOTASKS_MAX_LIMIT", "7")
    monkeypatch.setenv("GOTASKS_LEASE", "1.5")
    monkeypatch.setenv("GOTASKS_MONITOR_INTERVAL", "9")
    assert local.app.worker().queues == {QUEUE: QueueOptions(max_limit=7, lease=1.5, monitor_interval=9)}
    for name, value in [("GOTASKS_MAX_LIMIT", "many"), ("GOTASKS_LEASE", "-1"), ("GOTASKS_MAX_LIMIT", "0")]:
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(ConfigurationError):
                local.app.worker()


@pytest.mark.parametrize(
    "options",
    [
        {"max_limit": 0},
        {"max_limit": 1.5},
        {"max_limit": True},
        {"lease": 0},
        {"lease": float("inf")},
        {"monitor_interval": -1},
        {"max_crashes": 0},
        {"ack_when": "acquired"},
        {"max_limits": 3},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        App("memory://").queue(QUEUE, **options)


def test_a_queue_is_declared_once(local: Engine) -> None:
    queue = local.app.queue(QUEUE, max_limit=3)
    assert local.app.queue(QUEUE) is queue
    assert local.app.queue(QUEUE, max_limit=3) is queue
    with pytest.raises(ConfigurationError, match="declared already"):
        local.app.queue(QUEUE, max_limit=4)


def test_several_queues_of_one_worker_dont_starve_each_other(worked: Engine) -> None:
    gate = Gate()
    blocked = worked.app.register("gate", gate.handler)
    quick = worked.app.register("quick", worked.keep)
    worked.app.queue("slow", max_limit=2).enqueue_many(blocked, [{}] * 6)
    worked.app.queue("fast", max_limit=1)
    with worked.app.worker("slow", "fast"):
        eventually(lambda: gate.inside == 2, what="the slow queue's slots taken")
        tasks = worked.app.queue("fast").enqueue_many(quick, [{"n": n} for n in range(5)])
        for task in tasks:
            worked.watch.wait(TaskSucceeded, task)
        assert gate.inside == 2
        gate.open.set()
        worked.watch.wait(TaskSucceeded, count=11)
    assert gate.most == 2


@pytest.mark.needs("RECORDS")
def test_a_worker_serves_the_queues_that_it_was_given_and_no_others(worked: Engine) -> None:
    job = worked.app.register("quick", worked.keep)
    other = worked.app.queue("other").enqueue(job)
    mine = worked.app.queue("mine").enqueue(job)
    with worked.app.worker("mine"):
        worked.watch.wait(TaskSucceeded, mine)
    assert worked.kept.keys() == {mine.id}
    assert worked.app.stats("other") == stats(ready=1)
    assert other.status() == "ready"


#: Tries that run too long are looked for each sixth of a lease: 0.2 s.
LOOKED_AT = 1.2


# -- timeouts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["worker", "drain"])
def test_an_async_handler_that_takes_too_long_is_cancelled(how: str) -> None:
    engine = Engine("memory://", how=how)
    cancelled: list[float] = []

    async def stuck(args: ArgsMap) -> None:
        began = time.monotonic()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(time.monotonic() - began)
            raise

    plain = engine.enqueue(step(stuck, timeout=0.1))
    careful = engine.enqueue(reentrant(stuck, max_times=2, sleepy_ms=1, timeout=0.1))
    engine.run()
    assert len(cancelled) == 1 + 3  # the reentrant one is tried again
    assert all(0.09 <= seconds < 1 for seconds in cancelled)
    for task, doubt in ((plain, True), (careful, False)):
        failure = engine.failure(task)
        assert (failure.outcome, failure.in_doubt) == (Outcome.TIMED_OUT, doubt)
        assert "0.1 s" in failure.error
    engine.close()


@pytest.mark.needs("ATOMIC_MOVE")
def test_a_plain_handler_that_takes_too_long_is_buried_in_doubt_and_keeps_its_slot(worked: Engine) -> None:
    gate = Gate()
    task = worked.enqueue(
        step(gate.handler, timeout=0.2), worked.keep, max_limit=1, lease=LOOKED_AT, args={"order": 42}
    )
    following = worked.app.queue(QUEUE).enqueue(worked.app.register("next", worked.keep))
    with worked.app.worker():
        worked.watch.wait(TaskBuried, task)
        assert gate.inside == 1  # nobody can stop a thread
        failure = worked.failure(task)
        assert (failure.outcome, failure.in_doubt) == (Outcome.TIMED_OUT, True)
        assert worked.app.stats(QUEUE) == stats(ready=1)  # G6: the slot is taken, so the next one waits
        assert worked.watch.all(TaskStarted, following) == []
        gate.open.set()
        worked.watch.wait(TaskSucceeded, following)
    assert gate.calls == 1
    assert task.id not in worked.kept  # its result was discarded
    found = worked.buried(task).task
    assert found is not None
    assert bytes(found.args_map) == b'{"order":42}'


def test_a_plain_reentrant_handler_that_takes_too_long_is_tried_again_elsewhere(worked: Engine) -> None:
    gate = Gate()
    first = threading.Event()
    told: list[bool] = []

    def slow_once(args: ArgsMap) -> ArgsMap:
        if not first.is_set():
            first.set()
            now = context.current()
            gate.handler(args)
            told.append(now.revoked)
            return {"by": "the first try"}
        return {"by": "the second try"}

    task = worked.enqueue(
        reentrant(slow_once, sleepy_ms=1, timeout=0.2), worked.keep, max_limit=2, lease=LOOKED_AT
    )
    with worked.app.worker():
        worked.watch.wait(TaskSucceeded, task)
        assert gate.inside == 1  # they overlap: that is what reentrant means
        gate.open.set()
        worked.watch.wait(StepDone, task, count=3)
    assert worked.result(task) == {"by": "the second try"}
    assert told == [True]
    assert [fact.why for fact in worked.watch.all(TaskReleased, task)] == ["timeout"]


def test_timed_out_tries_are_counted_and_never_exceed_max_limit(local: Engine) -> None:
    gate = Gate()
    task = local.enqueue(
        reentrant(gate.handler, max_times=2, sleepy_ms=1, timeout=0.1), max_limit=2, lease=LOOKED_AT
    )
    with local.app.worker():
        eventually(lambda: gate.inside == 2, what="two tries that overlap")
        eventually(lambda: local.app.stats(QUEUE) == stats(ready=1), what="the third one waits for a slot")
        gate.open.set()
        local.watch.wait(TaskSucceeded, task)
    assert gate.most == 2
    assert gate.calls == 3
    assert [fact.tries for fact in local.watch.all(StepRetried, task)] == [1, 2]


def test_a_timeout_says_how_long_the_step_had_run_not_how_long_the_task(local: Engine) -> None:
    gate = Gate()

    def before(args: ArgsMap) -> None:
        threading.Event().wait(1.0)

    task = local.enqueue(before, step(gate.handler, timeout=0.1), lease=LOOKED_AT)
    with local.app.worker():
        local.watch.wait(TaskBuried, task)
        gate.open.set()
    seconds = float(local.failure(task).error.split(" after ")[1].split()[0])
    assert 0.1 <= seconds < 0.8


def test_the_lease_of_a_step_without_a_timeout_is_kept_for_as_long_as_it_runs(local: Engine) -> None:
    gate = Gate()
    task = local.enqueue(gate.handler, local.keep, lease=0.2)
    with local.app.worker():
        eventually(lambda: gate.inside == 1, what="inside")
        assert local.broker.acquire(QUEUE, limit=1, wait=0.9, lease_for=1) == []
        gate.open.set()
        local.watch.wait(TaskSucceeded, task)
