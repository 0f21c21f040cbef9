"""Load: tasks that are enqueued and run all the time, and the account of them, while servers change below."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gotasks import App, ArgsMap, context, reentrant
from gotasks.errors import BrokerError
from tests.backends.contract import eventually
from tests.backends.engine import at_rest

QUEUE = "orders"

#: Nothing takes that long; a busy machine gets the time. Seconds.
PATIENCE = 60.0


class Load:
    """A thread that enqueues, and a worker of this process. Each task has a plain step, then a reentrant one."""

    def __init__(self, url: str) -> None:
        self.app = App(url)
        self.queue = self.app.queue(QUEUE, max_limit=5, lease=5, monitor_interval=60)
        self.job = self.app.register("two steps", self._plain, reentrant(self._last, max_times=0))
        self.confirmed: dict[str, float] = {}  #: id → when its enqueue had returned (monotonic)
        self.unknown = 0  #: enqueues that raised
        self.plain: Counter[str] = Counter()  #: id → how often its plain step was started
        self.last: Counter[str] = Counter()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Tasks are enqueued and run for as long as the context lasts; after it all are worked off."""
        stop = threading.Event()
        producer = threading.Thread(target=self._produce, args=(stop,))
        with self.app.worker(QUEUE):
            producer.start()
            try:
                yield
            finally:
                stop.set()
                producer.join()
            eventually(
                lambda: at_rest(self.app.stats(QUEUE)), within=PATIENCE, what="all that is there worked off"
            )
        self.fatal = [each.id for each in self.app.fatal.list(limit=10_000)]

    def more(self, count: int) -> None:
        """Wait until so many more tasks, enqueued from now on, have been run."""
        before = set(self.confirmed)

        def run_since() -> int:
            return sum(each not in before for each in self.last.copy())

        eventually(lambda: run_since() >= count, within=PATIENCE, what=f"{count} more tasks")

    def lost(self) -> list[str]:
        """What was confirmed, and was neither run to its end nor waits in the fatal queue."""
        return [each for each in self.confirmed if each not in self.last and each not in self.fatal]

    def twice(self) -> list[str]:
        """Tasks whose plain step was started more than once."""
        return [each for each, count in self.plain.items() if count > 1]

    def __str__(self) -> str:
        return (
            f"{len(self.confirmed)} tasks confirmed, {len(self.lost())} lost, {len(self.twice())} plain steps started "
            f"twice, {len(self.fatal)} in doubt, {self.unknown} enqueues of unknown outcome"
        )

    def close(self) -> None:
        """Close the app."""
        self.app.close()

    def _produce(self, stop: threading.Event) -> None:
        while not stop.wait(0.001):
            try:
                task = self.queue.enqueue(self.job, {})
            except BrokerError:
                self.unknown += 1
            else:
                self.confirmed[task.id] = time.monotonic()

    def _plain(self, args: ArgsMap) -> None:
        self.plain[context.current().task_id] += 1

    def _last(self, args: ArgsMap) -> None:
        self.last[context.current().task_id] += 1
