"""Measures: each works on a stand for some seconds, and returns what it has seen."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

from gotasks.bench.counting import Counts
from gotasks.bench.figures import Enqueue, Latency
from gotasks.bench.stand import ROUNDS, STEPS, Stand
from gotasks.bench.timer import Timer

#: What is measured, in this order.
NAMES = ("warm-up", "round trip", "enqueue", "bulk", "drain", "chains", "latency")

#: So many calls at least, however slow they are.
_LEAST = 5

#: Calls and tasks of the warm-up. How fast the tasks go says how many are needed later.
_CALLS = 10
_TASKS = 300

#: How often it is looked what a worker has started, in seconds.
_GLANCE = 0.005

#: Pauses before a task that an idle worker shall start, in seconds: not always the same, since brokers may be polled.
_PAUSES = (0.01, 0.03)


def warm_up(stand: Stand, timer: Timer) -> float:
    """Do everything a few times, so that tables, connections and scripts are there. Returns steps a second, roughly."""
    timer.tell("warm-up", 0)
    for _ in range(_CALLS):
        stand.app.stats(stand.name)  # if nobody answers, nothing has to be removed later
        stand.queue.enqueue(stand.one, stand.args)
    chains, tasks = 2 * stand.slots, min(_TASKS, stand.room)
    stand.fill(stand.chain, chains)
    stand.fill(stand.one, tasks)
    began = time.monotonic()
    steps = _CALLS + chains * STEPS + tasks
    with stand.worker():
        timer.until("warm-up", lambda: stand.starts.qsize() >= steps)
    return steps / (time.monotonic() - began)


def ping(stand: Stand, timer: Timer) -> Latency:
    """The broker's cheapest call, on an empty queue."""
    return Latency.of(_times(timer, "round trip", lambda: stand.app.stats(stand.name)))


def enqueue(stand: Stand, timer: Timer, tasks: int) -> tuple[Enqueue, int]:
    """One by one; then in bulk until so many tasks have been added, or the time is over. Returns how many wait, too."""
    singles = _times(timer, "enqueue", lambda: stand.queue.enqueue(stand.one, stand.args), most=stand.room)
    least = -(-ROUNDS * stand.slots // stand.batch)
    most = max(least, -(-min(tasks, stand.room) // stand.batch))
    calls = _times(timer, "bulk", lambda: stand.fill(stand.one, stand.batch), least=least, most=most)
    bulk = len(calls) * stand.batch
    figures = Enqueue(one_by_one=len(singles) / sum(singles), bulk=bulk / sum(calls), batch=stand.batch)
    return figures, len(singles) + bulk


def drain(stand: Stand, timer: Timer, tasks: int) -> tuple[Counts, int]:
    """A worker on the backlog of so many tasks: what was counted, and how many it has started meanwhile."""
    return _work(stand, timer, "drain", tasks)


def chains(stand: Stand, timer: Timer, tasks: int) -> float:
    """A worker on a backlog of about so many chains: steps a second."""
    tasks = max(ROUNDS * stand.slots, min(tasks, stand.room))
    stand.fill(stand.chain, tasks)
    counts, steps = _work(stand, timer, "chains", tasks * STEPS)
    return steps / counts.seconds


def latency(stand: Stand, timer: Timer) -> Latency:
    """From the call of `enqueue` to the handler's start, of a worker that has nothing else to do."""

    def once() -> float:
        time.sleep(random.uniform(*_PAUSES))
        began = time.monotonic()
        stand.queue.enqueue(stand.one, stand.args)
        timer.until("latency", lambda: not stand.starts.empty())
        return stand.starts.get() - began

    waited: list[float] = []
    with stand.worker():
        once()
        for _ in timer.laps("latency", enough=lambda: len(waited) >= _LEAST):
            waited.append(once())  # noqa: PERF401 - how long the list is is asked meanwhile
    return Latency.of(waited)


def _work(stand: Stand, timer: Timer, what: str, steps: int) -> tuple[Counts, int]:
    """From when every slot has had something to do, until the time is over or all steps were started."""
    first, last = stand.slots, steps - 1
    with stand.worker((first, last)) as moments:
        timer.until(what, lambda: moments[first] is not None)
        enough = (ROUNDS - 1) * stand.slots  # more than the slots held when it began
        for _ in timer.laps(
            what,
            enough=lambda: stand.starts.qsize() >= enough,
            all_done=lambda: moments[last] is not None,
        ):
            time.sleep(_GLANCE)
        now, started = stand.broker.counts(), stand.starts.qsize() - 1
    stand.empty()
    before, after = moments[first], moments[last]
    assert before is not None
    return (now.since(before), started - first) if after is None else (after.since(before), last - first)


def _times(
    timer: Timer, what: str, call: Callable[[], object], *, least: int = _LEAST, most: float = math.inf
) -> list[float]:
    """How long each call took, in seconds: as many as fit into the time, within these limits."""
    times: list[float] = []
    for _ in timer.laps(what, enough=lambda: len(times) >= least, all_done=lambda: len(times) >= most):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return times
