"""Rows: the fatal queue. What fails waits there, whole, for a person; nothing but a person takes it out."""

from __future__ import annotations

import threading

from gotasks import ArgsMap, codec, step
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.kit.engine import Engine
from gotasks.conformance.kit.handlers import Calls
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene
from gotasks.events import TaskSucceeded
from gotasks.task import Outcome


class _Chain:
    """first → second (changes its map, and fails until `mended`) → keep."""

    def __init__(self, engine: Engine) -> None:
        self.calls: list[str] = []
        self.mended = False
        self.task = engine.enqueue(
            step(self.first, name="first"), step(self.second, name="second"), engine.keep, args={"order": 42}
        )

    def first(self, args: ArgsMap) -> ArgsMap:
        self.calls.append("first")
        return {**args, "first": True}

    def second(self, args: ArgsMap) -> ArgsMap:
        self.calls.append("second")
        args["spoilt"] = True
        if not self.mended:
            raise ValueError(f"order {args['order']} has no address")
        return {**args, "second": True}


@row("FTL-01", engine=True)
def a_failed_task_waits_in_the_fatal_queue_with_all_that_it_had(it: Scene) -> None:
    """Given a chain whose second handler changes its map in place and then raises, when a worker has run it, the task
    lies in the fatal queue: with the error's text, the failed step's name and index, and the args map as that step got
    it. The queue that it came from holds nothing any more.
    """
    engine = Engine.on(it)
    chain = _Chain(engine)
    engine.run(chain.task)
    found = engine.buried(chain.task)
    expect_equal(
        (found.failure.outcome, found.failure.error),
        (Outcome.FAILED, "ValueError: order 42 has no address"),
        "why the task is in the fatal queue",
    )
    assert found.task is not None
    expect_equal(
        (found.failure.step, found.task.current_handler_index),
        ("second", 1),
        "the step that failed, and its index",
    )
    expect_equal(
        codec.decode_args(found.task.args_map),
        {"order": 42, "first": True},
        "the args map of the failed step, which has to be as the step before had returned it",
    )
    left = it.take(min(5, it.limits.max_batch))
    expect_equal(len(left), 0, "what is left in the source queue of a task that went to the fatal queue")


@row("FTL-03", engine=True)
def a_resumed_task_goes_on_at_the_step_that_failed(it: Scene) -> None:
    """Given a task in the fatal queue whose second step had failed, when a person retries it, it leaves the fatal
    queue for the queue that it came from, and a worker goes on at the second step; the first isn't run again.
    """
    engine = Engine.on(it)
    chain = _Chain(engine)
    engine.run(chain.task)
    engine.buried(chain.task)
    chain.mended = True
    expect_equal(engine.app.fatal.retry(chain.task.id), it.queue, "the queue that a retry put the task into")
    expect_equal(len(engine.app.fatal.list()), 0, "tasks in the fatal queue after its only one was retried")
    engine.run(chain.task)
    expect_equal(chain.calls, ["first", "second", "second"], "steps that were run, the retry's included")
    expect_equal(
        engine.result(chain.task),
        {"order": 42, "first": True, "spoilt": True, "second": True},
        "the args map at the end of the resumed chain",
    )


#: How an error begins and ends that no server has room for. 1 MiB.
_ENDLESS = "é" * (512 * 1024)


class _Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


@row("FTL-04", engine=True)
def no_text_of_an_error_costs_its_task(it: Scene) -> None:
    """Given handlers that raise errors with a text of 1 MiB, with NUL and emoji, with half of a surrogate pair, and
    with none that could be had, when a worker runs them, all four tasks lie in the fatal queue. Text that can be
    stored is as it was, what can't is escaped, and what is too long is cut and says so.
    """
    engine = Engine.on(it)
    texts = {
        "nasty": ValueError("nul \x00 smile \N{GRINNING FACE}\r\n\x1b[31m"),
        "half": ValueError("half \ud800 pair"),
        "endless": ValueError(_ENDLESS),
        "silent": _Silent(),
    }

    def failing(args: ArgsMap) -> None:
        raise texts[args["which"]]

    job = engine.app.register("failing", failing)
    engine.declare()
    tasks = {name: engine.app.queue(it.queue).enqueue(job, {"which": name}) for name in texts}
    engine.run(*tasks.values(), within=5)
    found = {name: engine.buried(task) for name, task in tasks.items()}
    errors = {name: each.failure.error for name, each in found.items()}
    expect_equal(errors["nasty"], f"ValueError: {texts['nasty']}", "an error's text with NUL and an emoji")
    expect_equal(
        errors["half"], "ValueError: half \\ud800 pair", "an error's text with half a surrogate pair"
    )
    expect(
        errors["endless"].startswith("[cut] …") and errors["endless"].endswith("éé"),
        f"an error's text of 1 MiB should be cut and say so; it begins {errors['endless'][:20]!r}",
    )
    size, most = len(found["endless"].body), engine.app.max_body
    expect(size <= most, f"a buried task has {size} bytes, where the app allows {most}")
    expect("_Silent" in errors["silent"], f"an error without a text is called {errors['silent']!r}")


@row("FTL-05", engine=True)
def a_job_that_no_worker_knows_goes_to_fatal_and_the_worker_goes_on(it: Scene) -> None:
    """Given a task of a job that the worker doesn't know, and one that it does, when a worker with one slot runs, the
    first lies in the fatal queue under its job's name, and the second is done.
    """
    engine = Engine.on(it)
    engine.declare(max_limit=1)
    engine.app.external("mailing")
    unknown = engine.app.queue(it.queue).enqueue("mailing", {"order": 42})
    good = engine.enqueue(engine.keep)
    engine.run(unknown, good, within=5)
    failure = engine.failure(unknown)
    expect_equal(failure.outcome, Outcome.UNKNOWN_JOB, "why a task of an unknown job is in the fatal queue")
    expect("'mailing'" in failure.error, f"the reason should name the unknown job: {failure.error!r}")
    engine.result(good)


@row("FTL-06", engine=True)
def no_worker_takes_from_the_fatal_queue(it: Scene) -> None:
    """Given a task in the fatal queue, when a worker serves all queues of the app and runs other tasks, the buried one
    isn't run again and lies there as it was.
    """
    engine = Engine.on(it)
    failing = Calls()
    buried = engine.enqueue(failing.handler)
    engine.run(buried)
    before = engine.buried(buried).body
    goods = [engine.enqueue(engine.keep) for _ in range(5)]
    with engine.worker():
        engine.watch.wait(TaskSucceeded, count=len(goods))
        threading.Event().wait(0.2)  # nothing says that a worker doesn't look there
    expect_equal(len(failing.at), 1, "calls of the handler whose task lies in the fatal queue")
    expect(
        engine.buried(buried).body == before,
        "a task in the fatal queue was changed, though nobody touched it",
    )
