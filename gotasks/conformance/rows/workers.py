"""Rows: workers. How many handlers run at once, whose turn it is, how a worker stops, and what an outage does to it."""

from __future__ import annotations

import threading
import time

from gotasks import AckWhen, App, ArgsMap, codec, reentrant, step
from gotasks.broker import Capability
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.kit.engine import Engine, Log
from gotasks.conformance.kit.handlers import Calls, Gate, Steps
from gotasks.conformance.kit.tap import Tap
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene
from gotasks.events import BrokerDown, QueueMeasured, TaskBuried, TaskStarted, TaskSucceeded


@row("CHN-03", engine=True)
def no_more_handlers_run_at_once_than_max_limit(it: Scene) -> None:
    """Given a queue with `max_limit=2` and more tasks than that, when a worker runs them, never more than two handlers
    are inside at once, and all tasks are done in the end.
    """
    engine = Engine.on(it)
    engine.declare(max_limit=2)
    gate = Gate()
    job = engine.app.register("gate", gate.handler)
    tasks = [engine.app.queue(it.queue).enqueue(job) for _ in range(6)]
    with engine.worker():
        engine.watch.until(lambda: gate.inside >= 2, "two handlers at once")
        threading.Event().wait(0.2)  # nothing says that a third doesn't come
        gate.open.set()
        engine.watch.wait(TaskSucceeded, count=len(tasks))
    expect_equal(gate.most, 2, "handlers at once, of a queue with max_limit=2")


@row("CHN-05", engine=True)
def a_clean_stop_gives_back_what_is_not_begun(it: Scene) -> None:
    """Given six chains and a worker that runs the first step of two, when it is stopped while these run, they finish,
    no further step is started, and all six tasks are ready again: with the new state, and no death counted.
    """
    engine = Engine.on(it)
    engine.declare(max_limit=2)
    gate, steps = Gate(), Steps()
    job = engine.app.register("chain", gate.handler, steps.two)
    for _ in range(6):
        engine.app.queue(it.queue).enqueue(job)
    worker = engine.worker()
    it.at_end(gate.open.set)
    worker.start()
    engine.watch.until(lambda: gate.inside == 2, "two handlers at once")
    stopping = threading.Thread(target=worker.stop, daemon=True)
    stopping.start()
    it.eventually(worker._stopping.is_set, "the beginning of the stop")  # noqa: SLF001 - nobody is told otherwise
    gate.open.set()
    stopping.join(8)
    expect(not stopping.is_alive(), "a worker doesn't stop though its handlers have ended")
    expect_equal((gate.calls, steps.calls), (2, []), "steps that a stopping worker had begun")
    left = [(codec.decode(each.envelope.body).current_handler_index, each.deaths) for each in it.drain()]
    expect_equal(
        sorted(left),
        [(0, 0)] * 4 + [(1, 0)] * 2,
        "index and deaths of the tasks that are ready after a clean stop",
    )


@row("CHN-06", engine=True)
def acked_when_acquired_a_task_is_begun_at_most_once(it: Scene) -> None:
    """Given a queue with `AckWhen.ACQUIRED`, when a worker goes away in the middle of a handler, nobody gets its task
    again. One whose handler raises goes to the fatal queue all the same.
    """
    holder = it.client()
    engine = Engine.on(it, by=holder)
    gate = Gate()
    it.at_end(gate.open.set)
    engine.declare(ack_when=AckWhen.ACQUIRED, lease=it.lease)
    engine.enqueue(gate.handler)
    failing = engine.enqueue(Calls().handler)
    worker = engine.worker(grace=0.1)
    worker.start()
    engine.watch.until(lambda: gate.inside == 1, "a handler inside")
    engine.watch.wait(TaskBuried, failing)
    worker.stop()
    engine.buried(failing)
    if it.claims(Capability.TIMED_LEASE):
        threading.Event().wait(it.lease * 1.25)  # nothing but the clock can tell
    elif it.claims(Capability.SHARED):
        holder.close()
    left = it.take(by=it.client(), wait=it.limits.recovery + 0.1)
    expect_equal(len(left), 0, "tasks that come back though they were acked before their first step")


@row("CHN-09", engine=True)
def a_handler_may_register_a_job_and_enqueue_a_task_of_it(it: Scene) -> None:
    """Given a handler that registers a job and enqueues a task of it, when a worker with one slot runs it, both tasks
    are done by that worker.
    """
    engine = Engine.on(it)
    engine.declare(max_limit=1)

    def registers(args: ArgsMap) -> None:
        job = engine.app.register("late", engine.keep)
        engine.app.queue(it.queue).enqueue(job, {"late": True})

    engine.enqueue(registers)
    with engine.worker():
        engine.watch.until(lambda: engine.kept, "the task of a job that a handler registered", within=3)


@row("CHN-10", engine=True)
def the_options_of_a_queue_reach_its_worker(it: Scene) -> None:
    """Given a queue that an app declares with a lease, a `max_limit` and a `monitor_interval`, when a worker of that
    app serves it, tasks are acquired with that lease and never more than that many at once, and the queue is
    measured that often.
    """
    tap = Tap(it.client())
    engine = Engine.on(it, by=tap)
    lease = min(7.5, it.limits.max_lease or 7.5)
    engine.declare(lease=lease, max_limit=3, monitor_interval=0.05)
    engine.app.register("job", engine.keep)
    with engine.worker():
        engine.watch.wait(QueueMeasured, count=3, within=3)
        engine.watch.until(lambda: tap.asked, "an acquire")
    limits = {each["limit"] for each in tap.asked}
    leases = {each["lease_for"] for each in tap.asked}
    most = min(3, it.limits.max_batch)
    expect_equal((limits, leases), ({most}, {lease}), "limit and lease with which an idle worker acquires")


@row("CHN-11", engine=True)
def an_idle_worker_stops_at_once(it: Scene) -> None:
    """Given a worker that waits for tasks of an empty queue, when it is stopped, it has ended within 3 s."""
    engine = Engine.on(it)
    engine.declare()
    engine.app.register("job", engine.keep)
    worker = engine.worker()
    worker.start()
    engine.watch.wait(QueueMeasured)
    threading.Event().wait(0.1)  # nobody is told that the fetcher waits now
    began = time.monotonic()
    stopping = threading.Thread(target=worker.stop, daemon=True)
    stopping.start()
    stopping.join(3)
    expect(not stopping.is_alive(), "an idle worker hasn't stopped within 3 s")
    it.figures["stop ms"] = round((time.monotonic() - began) * 1000)


@row("DLV-08", engine=True)
def a_queue_that_is_never_empty_starves_no_other(it: Scene) -> None:
    """Given a worker for two queues, one of which is filled up again by each of its tasks, when tasks come into the
    other one, each is done within 5 s.
    """
    engine = Engine.on(it)
    busy = it.name("busy")
    engine.declare(busy, max_limit=2)
    engine.declare(max_limit=2)
    over = threading.Event()

    def refill(args: ArgsMap) -> None:
        if not over.is_set():
            engine.app.queue(busy).enqueue("refill")

    filling = engine.app.register("refill", refill)
    job = engine.app.register("other", engine.keep)
    for _ in range(20):
        engine.app.queue(busy).enqueue(filling)
    it.at_end(over.set)
    with engine.worker(busy, it.queue):
        engine.watch.wait(TaskSucceeded, count=20)
        for _ in range(3):
            task = engine.app.queue(it.queue).enqueue(job)
            engine.watch.wait(TaskSucceeded, task, within=5)
        over.set()


@row("THR-02", engine=True)
def a_handler_that_runs_for_long_keeps_its_lease(it: Scene) -> None:
    """Given two tasks whose handlers take several leases, one of them blocked, the other busy in short bursts that let
    no other thread run, when another client asks for tasks all the while, it gets neither, and both are done.
    """
    engine = Engine.on(it)
    lease = max(2 * it.lease, 0.8)
    seconds = it.times(quick=2, full=4) * lease

    def blocks(args: ArgsMap) -> None:
        threading.Event().wait(seconds)

    def grinds(args: ArgsMap) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sum(range(300_000))  # one call of C, which keeps the interpreter to itself

    engine.declare(max_limit=2, lease=lease)
    tasks = [engine.enqueue(step(each, name=each.__name__)) for each in (blocks, grinds)]
    other = it.client()
    with engine.worker():
        engine.watch.wait(TaskStarted, count=2)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            stolen = it.take(by=other)
            expect(
                not stolen,
                "a task was handed out a second time while its handler ran, in a worker that lives",
            )
            threading.Event().wait(lease / 10)
        for each in tasks:
            engine.watch.wait(TaskSucceeded, each, within=seconds)


@row("SRV-03", engine=True, timeout=120)
def workers_go_on_by_themselves_when_the_server_is_back(it: Scene) -> None:
    """Given a worker with a running handler, when the server is away for a while and comes back, the worker goes on by
    itself: the running task is done, and so is one that was enqueued since. Meanwhile it asks with pauses, and
    the log says it once in a while, not each time.
    """
    away = it.times(quick=2, full=10)
    proxy, url = it.proxy()
    engine = Engine.on(it, by=it.client(url))
    gate = Gate()
    it.at_end(gate.open.set)
    task = engine.enqueue(reentrant(gate.handler), engine.keep)
    later = engine.app.register("later", engine.keep)
    with Log(engine.app) as log, engine.worker():
        engine.watch.until(lambda: gate.inside == 1, "a handler inside")
        with proxy.refusing():
            gate.open.set()
            engine.watch.wait(BrokerDown)
            threading.Event().wait(away)
        attempts, lines = len(engine.watch.all(BrokerDown)), len(log.lines)
        producer = App(it.broker, fatal_queue=it.fatal)
        producer.external(later.name)
        fresh = producer.queue(it.queue).enqueue(later.name)
        for each in (task, fresh):
            engine.watch.wait(TaskSucceeded, each.id, within=6)
    it.figures.update({"away s": away, "attempts": attempts, "lines of log": lines})
    expect(attempts <= 20 + 5 * away, f"a server that was away for {away} s was asked {attempts} times")
    expect(lines <= 3 + away / 5, f"the log has {lines} lines of a server that was away for {away} s")
