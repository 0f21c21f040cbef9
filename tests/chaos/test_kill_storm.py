"""Workers are killed all the time, each while it works; no task is lost, none goes back, nothing is done twice.

On RabbitMQ with fewer kills than are worth calling a storm, unless `GOTASKS_TEST_STORMS=full`: a worker takes its time
to start, and CI has none. The full number is that of docs/brokers/rabbitmq.md.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gotasks.conformance.kit.crew import Crew
from gotasks.conformance.kit.process import Process, until
from tests.chaos.conftest import FULL
from tests.rabbit_server import namespaced

QUEUE = "storm"
#: To begin with. Where each step waits behind what is there, the kills are to meet more than the first ones.
TASKS = {"redis": 2_000, "rabbitmq": 200}
WORKERS = 3
#: Handlers at once in one worker: every kill hits up to that many tasks.
LIMIT = 4
LEASE = 2.0
KILLS = {"redis": 50, "rabbitmq": 100 if FULL else 25}
#: Bytes of an args map, as many tasks of each: small, and several blocks of a disk.
SIZES = {"redis": (300,), "rabbitmq": (300, 20_000)}
#: Seconds between two kills, if the last replacement consumes by then.
PACE = 0.3
#: With fewer ready tasks than that, more are enqueued, so that there is work until the last kill.
FEW, MORE = 200, 200
#: Tasks in doubt that are resumed by a command each; the others by one command together.
ONE_BY_ONE = 5


class Storm:
    """The producer, the workers and the one who kills them."""

    def __init__(self, crew: Crew, dice: random.Random, backend: str) -> None:
        self.crew = crew
        self.least = KILLS[backend]  #: so many kills are wanted
        self.sizes = SIZES[backend]
        self.dice = dice
        self.workers: list[Process] = []
        self.kills = 0
        self.misses = 0  #: frozen between two handlers, so not killed
        self.hit: Counter[str] = Counter()  #: how often the handler of a task was running at a kill

    def enqueue(self, count: int) -> None:
        """Half of these tasks have a middle step that is reentrant."""
        for name in ("storm-plain", "storm-reentrant"):
            for size in self.sizes:
                self.crew.enqueue_many(name, count // (2 * len(self.sizes)), load="x" * size)

    def start_worker(self) -> None:
        self.workers.append(self.crew.start(limit=LIMIT, lease=LEASE))

    def all_consume(self) -> bool:
        """Whether each worker has begun with a task. There are always some that nobody has."""
        self.crew.history.update()
        ended = [worker.output for worker in self.workers if not worker.alive]
        assert not ended, ended
        if self.crew.app.queue_len(QUEUE) < FEW:
            self.enqueue(MORE)
        return all(self.crew.history.consumes(worker.pid) for worker in self.workers)

    def kill_one(self) -> None:
        """Kill a worker in the middle of a handler, and replace it."""
        victim = self.dice.choice(self.workers)
        victim.freeze()  # what it did is in the history, and it can't begin or end anything more
        held = [task for task, _ in self.crew.history.update().running(victim.pid)]
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
        while self.kills < self.least:
            until(self.all_consume, "every worker consumes", pause=0.05)
            time.sleep(max(0.0, due - time.monotonic()))  # the pace of the kills
            due = time.monotonic() + PACE
            self.kill_one()


@pytest.fixture(params=KILLS)
def backend(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def crew(tmp_path: Path, backend: str, request: pytest.FixtureRequest) -> Iterator[Crew]:
    with ExitStack() as stack:
        if backend == "rabbitmq":  # it writes too much for a server that others use
            url = stack.enter_context(namespaced(request.getfixturevalue("private_rabbit").url))
        else:
            url = request.getfixturevalue(f"{backend}_url")
        # The kills are the test's, not the tasks': a task that meets several of them isn't poison.
        crew = stack.enter_context(Crew(tmp_path, url, [QUEUE], max_crashes=20))
        yield crew
        sys.stdout.write(crew.output)


@pytest.mark.timeout(900 if FULL else 300)
def test_kill_storm(crew: Crew, backend: str, figures: Callable[[str], None]) -> None:
    seed = random.randrange(2**32)
    began = time.monotonic()
    storm = Storm(crew, random.Random(seed), backend)
    storm.enqueue(TASKS[backend])
    storm.rage()
    raged = time.monotonic() - began
    crew.settled(timeout=60)
    calmed = time.monotonic() - began

    found = crew.ends()
    in_doubt = {task: end.step for task, end in found.items() if end.status == "fatal"}
    history = crew.history.update()
    starts = Counter((each.task, each.step) for each in history.find("start"))
    begun = sum(starts[task, crew.expected[task].steps.index(step)] for task, step in in_doubt.items())
    again = Counter(step for (_, step), count in starts.items() for _ in range(count - 1))
    figures(
        f"{storm.kills} kills of workers in a handler ({storm.misses} more weren't in one and lived; seed {seed}), "
        f"{sum(storm.hit.values())} handlers killed, {len(crew.expected)} tasks, {len(in_doubt)} in doubt "
        f"({begun} of them begun), steps run again {dict(sorted(again.items()))}, lost leases "
        f"{len(history.find('lost'))}; killed for {raged:.1f} s, calm after {calmed:.1f} s"
    )
    assert storm.kills >= KILLS[backend]
    assert len(crew.expected) >= TASKS[backend]
    assert crew.problems() == []
    assert sorted(each.id for each in crew.app.fatal.list(limit=len(crew.expected))) == sorted(in_doubt)
    # The storm has met what it is for: both kinds of step died in the middle.
    assert in_doubt
    assert again[1] > 0

    resumed = {task: crew.expected[task].steps.index(step) for task, step in in_doubt.items()}
    resume(crew, list(resumed))
    crew.settled(timeout=60)
    assert crew.problems(resumed=resumed) == []
    assert {end.status for end in crew.ends().values()} == {"done"}
    for worker in storm.workers:
        worker.signal(signal.SIGTERM)
    assert [worker.wait() for worker in storm.workers] == [0] * WORKERS
    figures(f"{len(resumed)} in doubt resumed and done; all in all {time.monotonic() - began:.1f} s")


def resume(crew: Crew, tasks: list[str]) -> None:
    """`gotasks fatal retry --force` for each; without --force it's refused."""
    refused = crew.command("fatal", "retry", tasks[0])
    assert refused.returncode == 1
    assert "in doubt" in refused.stderr
    together: Iterable[list[str]] = [[task] for task in tasks[:ONE_BY_ONE]]
    for ids in [*together, tasks[ONE_BY_ONE:]]:
        if ids:
            done = crew.command("fatal", "retry", "--force", *ids)
            assert done.returncode == 0, done.stderr
            assert [line.split()[0] for line in done.stdout.splitlines()] == ids
