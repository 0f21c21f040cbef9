"""Workers are killed all the time, each while it works; no task is lost, none goes back, nothing is done twice."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from gotasks import App
from tests.chaos.ends import at_rest, ends
from tests.chaos.history import Account, Expected, Reader
from tests.chaos.processes import Fleet, Process, until

QUEUE = "storm"
TASKS = 2_000
WORKERS = 3
#: Handlers at once in one worker: every kill hits up to that many tasks.
LIMIT = 4
LEASE = 2.0
KILLS = 50
#: Seconds between two kills, if the last replacement consumes by then.
PACE = 0.3
#: With fewer ready tasks than that, more are enqueued, so that there is work until the last kill.
FEW, MORE = 200, 200
#: Tasks in doubt that are resumed by a command each; the others by one command together.
ONE_BY_ONE = 5


class Storm:
    """The producer, the workers and the one who kills them."""

    def __init__(self, app: App, fleet: Fleet, history: Reader, dice: random.Random) -> None:
        self.app = app
        self.fleet = fleet
        self.history = history
        self.dice = dice
        self.expected: dict[str, Expected] = {}
        self.workers: list[Process] = []
        self.kills = 0
        self.misses = 0  #: frozen between two handlers, so not killed
        self.hit: Counter[str] = Counter()  #: how often the handler of a task was running at a kill

    def enqueue(self, count: int) -> None:
        """Half of these tasks have a middle step that is reentrant."""
        for name in ("storm-plain", "storm-reentrant"):
            first = len(self.expected)
            args = [{"n": first + number, "trail": []} for number in range(count // 2)]
            job = self.app.jobs[name]
            handles = self.app.queue(QUEUE).enqueue_many(job, args)
            for handle, each in zip(handles, args, strict=True):
                self.expected[handle.id] = Expected.of(job, each)

    def start_worker(self) -> None:
        self.workers.append(self.fleet.start(QUEUE, limit=LIMIT, lease=LEASE))

    def all_consume(self) -> bool:
        self.history.update()
        ended = [worker.output for worker in self.workers if not worker.alive]
        assert not ended, ended
        return all(self.history.consumes(worker.pid) for worker in self.workers)

    def kill_one(self) -> None:
        """Kill a worker in the middle of a handler, and replace it."""
        victim = self.dice.choice(self.workers)
        victim.freeze()  # what it did is in the history, and it can't begin or end anything more
        held = [task for task, _ in self.history.update().running(victim.pid)]
        if not held:
            victim.thaw()
            self.misses += 1
            return
        victim.kill()
        self.kills += 1
        self.hit.update(held)
        self.workers.remove(victim)
        self.start_worker()

    def rage(self) -> None:
        """Kill until it's enough; feed the workers meanwhile."""
        for _ in range(WORKERS):
            self.start_worker()
        due = time.monotonic()
        while self.kills < KILLS:
            until(self.all_consume, "every worker consumes")
            time.sleep(max(0.0, due - time.monotonic()))  # the pace of the kills
            due = time.monotonic() + PACE
            if self.app.queue_len(QUEUE) < FEW:
                self.enqueue(MORE)
            self.kill_one()

    def settled(self, *, timeout: float) -> None:
        """Wait until the queue is empty and nothing is held."""
        until(lambda: at_rest(self.app, QUEUE), "the queue is empty", timeout=timeout, pause=0.1)
        self.history.update()


@pytest.mark.timeout(175)
def test_kill_storm(app: App, fleet: Fleet, history: Reader, figures: Callable[[str], None]) -> None:
    seed = random.randrange(2**32)
    began = time.monotonic()
    storm = Storm(app, fleet, history, random.Random(seed))
    storm.enqueue(TASKS)
    storm.rage()
    raged = time.monotonic() - began
    storm.settled(timeout=60)
    calmed = time.monotonic() - began

    found = ends(app, storm.expected)
    in_doubt = {task: end.step for task, end in found.items() if end.status == "fatal"}
    starts = Counter((each.task, each.step) for each in history.find("start"))
    begun = sum(starts[task, storm.expected[task].steps.index(step)] for task, step in in_doubt.items())
    again = Counter(step for (_, step), count in starts.items() for _ in range(count - 1))
    figures(
        f"{storm.kills} kills of workers in a handler ({storm.misses} more weren't in one and lived; seed {seed}), "
        f"{sum(storm.hit.values())} handlers killed, {len(storm.expected)} tasks, {len(in_doubt)} in doubt "
        f"({begun} of them begun), steps run again {dict(sorted(again.items()))}, lost leases "
        f"{len(history.find('lost'))}; killed for {raged:.1f} s, calm after {calmed:.1f} s"
    )
    assert storm.kills >= KILLS
    assert len(storm.expected) >= TASKS
    assert Account(history.entries, storm.expected, found).problems() == []
    assert sorted(each.id for each in app.fatal.list(limit=len(storm.expected))) == sorted(in_doubt)
    # The storm has met what it is for: both kinds of step died in the middle.
    assert in_doubt
    assert again[1] > 0

    resumed = {task: storm.expected[task].steps.index(step) for task, step in in_doubt.items()}
    resume(fleet, list(resumed))
    storm.settled(timeout=60)
    found = ends(app, storm.expected)
    assert Account(history.entries, storm.expected, found, resumed).problems() == []
    assert {end.status for end in found.values()} == {"done"}
    for worker in storm.workers:
        worker.signal(signal.SIGTERM)
    assert [worker.wait() for worker in storm.workers] == [0] * WORKERS
    figures(f"{len(resumed)} in doubt resumed and done; all in all {time.monotonic() - began:.1f} s")


def resume(fleet: Fleet, tasks: list[str]) -> None:
    """`gotasks fatal retry --force` for each; without --force it's refused."""
    refused = fleet.command("fatal", "retry", tasks[0])
    assert refused.returncode == 1
    assert "in doubt" in refused.stderr
    together: Iterable[list[str]] = [[task] for task in tasks[:ONE_BY_ONE]]
    for ids in [*together, tasks[ONE_BY_ONE:]]:
        if ids:
            done = fleet.command("fatal", "retry", "--force", *ids)
            assert done.returncode == 0, done.stderr
            assert [line.split()[0] for line in done.stdout.splitlines()] == ids
