"""Rows: garbage. What isn't a task, or can't be run, never stops a worker, and is kept where a person sees it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Mapping
from typing import Any

from gotasks import ArgsMap, codec, step
from gotasks.broker import Capability
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.kit.engine import Engine, Log
from gotasks.conformance.kit.tap import Tap
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene
from gotasks.events import TaskBuried, TaskSucceeded
from gotasks.fatal import FatalTask
from gotasks.task import Outcome

#: Nobody needs longer to bury what can't be read. Seconds.
_SOON = 5.0


@row("BAD-01", engine=True)
def foreign_bytes_in_a_queue_are_kept_and_the_worker_goes_on(it: Scene) -> None:
    """Given bytes that somebody put into a queue past the broker, between tasks of the app, when a worker runs, each of
    them lies in the fatal queue as it came, with a reason, under an id that the broker gave it; the tasks are done.
    """
    foreign = [
        b"\x00\xff\r\n",
        b"two words",
        b"x" * 100,
        "\N{GRINNING FACE}".encode() * 20,
        b"[1, 2]",
        b"-" * 70,
    ]
    engine = Engine.on(it)
    engine.declare(max_limit=2)
    job = engine.app.register("good", engine.keep)
    queue = engine.app.queue(it.queue)
    goods = [queue.enqueue(job)]
    for data in foreign:
        it.adapter.put_raw(it.url, it.queue, data)
        goods.append(queue.enqueue(job))
    with engine.worker():
        engine.watch.wait(TaskBuried, count=len(foreign), within=_SOON)
        engine.watch.wait(TaskSucceeded, count=len(goods), within=_SOON)
        it.eventually(lambda: len(_fatal(engine)) >= len(foreign), "all foreign elements in the fatal queue")
    found = _fatal(engine)
    expect_equal(sorted(map(_raw, found)), sorted(foreign), "the bytes of what is in the fatal queue")
    expect_equal(
        {each.failure.outcome for each in found},
        {Outcome.UNREADABLE},
        "why foreign bytes are in the fatal queue",
    )


#: Deep enough for the stack of any decoder.
_DEEP = 100_000


def _bodies(queue: str) -> Mapping[str, bytes]:
    """Bodies that aren't records that this version can read."""
    good = _record(queue)
    return {
        "bytes": b"\x00\xff\xfe garbage \r\n",
        "nothing": b"",
        "other JSON": b'{"hello": [1, 2, 3]}',
        "a list": b"[]",
        "cut off": good[:-1],
        "nested": b"[" * _DEEP,
        "args that are no map": _record(queue, args_map=[1]),
        "an index that is text": _record(queue, current_handler_index="0"),
        "a newer version": _record(queue, v=codec.VERSION + 1),
        "crashes that are no number": b'{"crashes": {"not": "a number"}}',
    }


def _record(queue: str, **changes: Any) -> bytes:
    """A record of the job `good` that is right but for these changes."""
    fields: dict[str, Any] = {
        "task_id": "a-record",
        "created_at": codec.now(),
        "updated_at": codec.now(),
        "queue_name": queue,
        "job_name": "good",
        "args_map": {},
        "current_handler_index": 0,
        "original_args_map": {},
        "v": codec.VERSION,
        "steps": ["one", "two"],
    }
    return json.dumps(fields | changes).encode()


@row("BAD-02", engine=True)
def a_body_that_is_no_record_is_kept_and_the_worker_goes_on(it: Scene) -> None:
    """Given bodies that aren't JSON, aren't a record, or are one of a newer version, when a worker meets them, none of
    them is run; each lies in the fatal queue, byte by byte, with a reason. The next task is done.
    """
    engine = Engine.on(it)
    engine.declare(max_limit=1)
    engine.app.register("good", step(engine.keep, name="one"), step(engine.keep, name="two"))
    bodies = _bodies(it.queue)
    envelopes = {name: it.envelope(body) for name, body in bodies.items()}
    # Too large to be wrapped in a record: it has to be kept as it is.
    bodies = {**bodies, "large": b"x" * (engine.app.max_body - 100)}
    envelopes["large"] = it.envelope(bodies["large"])
    for each in envelopes.values():
        it.broker.enqueue([each])
    good = engine.enqueue(engine.keep)
    engine.run(*(each.id for each in envelopes.values()), good, within=_SOON)
    found = {name: engine.buried(each.id) for name, each in envelopes.items()}
    kept = {name: _raw(each) for name, each in found.items()}
    expect_equal(
        [name for name in bodies if kept[name] != bodies[name]], [], "bodies that weren't kept as they came"
    )
    without = [
        name
        for name, each in found.items()
        if each.failure.outcome is not Outcome.UNREADABLE or (name != "large" and not each.failure.error)
    ]
    expect_equal(without, [], "bodies that lie in the fatal queue without the reason that they can't be read")
    engine.result(good)


@row("BAD-03", engine=True)
def an_index_outside_its_chain_goes_to_fatal(it: Scene) -> None:
    """Given records whose index is below 0 or above the number of steps, when a worker meets them, no step is called
    and none of them counts as done: they lie in the fatal queue, and the reason names the index.
    """
    engine = Engine.on(it)
    engine.declare()
    calls: list[int] = []

    def called(args: ArgsMap) -> None:
        calls.append(1)

    engine.app.register("good", step(called, name="one"), step(called, name="two"))
    tasks = {index: it.envelope(_record(it.queue, current_handler_index=index)) for index in (-1, 3)}
    for each in tasks.values():
        it.broker.enqueue([each])
    engine.run(*(each.id for each in tasks.values()), within=_SOON)
    errors = {index: engine.buried(each.id).failure.error for index, each in tasks.items()}
    expect_equal(calls, [], "steps that were called at an index outside the chain")
    expect(
        all(str(index) in error for index, error in errors.items()),
        f"the reasons should name the indexes: {errors}",
    )


@row("BAD-04", engine=True)
def a_flood_of_garbage_is_taken_away_once(it: Scene) -> None:
    """Given a queue full of bodies that can't be read, when a worker runs, each is acquired once, goes to the fatal
    queue, and costs one line of log.
    """
    count = it.times(quick=50, full=1000)
    tap = Tap(it.client())
    engine = Engine.on(it, by=tap)
    engine.declare()
    engine.app.register("some", engine.keep)
    it.put(count, body=b"\xffgarbage " * 500)
    with Log(engine.app) as log, engine.worker():
        engine.watch.wait(TaskBuried, count=count, within=30)
        good = engine.enqueue(engine.keep)
        engine.watch.wait(TaskSucceeded, good)
    garbage = [each for each in tap.delivered if each.envelope.id != good.id]
    # A move that isn't atomic takes two deliveries: the first marks the task, the second moves it.
    most = count if it.claims(Capability.ATOMIC_MOVE) else 2 * count
    expect(len(garbage) <= most, f"{count} unreadable bodies were acquired {len(garbage)} times")
    expect(
        len(log.lines) <= count + 5 and max(map(len, log.lines)) <= 1000,
        f"{count} unreadable bodies make {len(log.lines)} lines of log, the longest of {max(map(len, log.lines))} "
        "characters",
    )
    it.figures["garbage"] = count


@row("BAD-05", engine=True)
def a_place_in_a_queue_whose_record_is_gone_is_passed_over_once(it: Scene) -> None:
    """Given a task whose record was taken away while its place in the queue stayed, when a worker comes to it, it is
    passed over or lies in the fatal queue, once; nothing goes round in circles, and the tasks behind it are done.
    """
    tap = Tap(it.client())
    engine = Engine.on(it, by=tap)
    engine.declare(max_limit=1)
    job = engine.app.register("good", engine.keep)
    queue = engine.app.queue(it.queue)
    before, gone, after = (queue.enqueue(job) for _ in range(3))
    it.adapter.evict(it.url, gone.id)
    with engine.worker():
        for each in (before, after):
            engine.watch.wait(TaskSucceeded, each, within=_SOON)
        # A task that is enqueued later finds the worker as it was.
        engine.watch.wait(TaskSucceeded, queue.enqueue(job), within=_SOON)
        threading.Event().wait(0.3)  # nothing says that a worker doesn't meet it again
    expect(gone.id not in engine.kept, "a task was run whose record is gone")
    met = [each for each in tap.delivered if each.envelope.id == gone.id]
    expect(
        len(met) <= 1,
        f"a place whose record is gone was handed out {len(met)} times, and has to be passed over or reported once",
    )


def _fatal(engine: Engine) -> list[FatalTask]:
    return engine.app.fatal.list(1000)


def _raw(found: FatalTask) -> bytes:
    """The bytes of a body that couldn't be read, from its record in the fatal queue or as they came."""
    if found.task is None:
        return found.body
    return base64.b64decode(found.task.raw or "")
