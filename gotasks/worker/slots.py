"""Slots: the threads on which handlers run. `max_limit` of them, so no more handlers of a queue run at once (G6)."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from gotasks.run import Run

logger = logging.getLogger("gotasks")


class Slots:
    """A fixed number of slots; a thread is started when the first task needs it.

    The fetcher takes free slots (`take`), then gives each a run (`give`) or puts it back (`put_back`).
    """

    def __init__(self, queue: str, count: int, work: Callable[[Run], None]) -> None:
        self.count = count
        self._queue = queue
        self._work = work
        self._free: SimpleQueue[bool] = SimpleQueue()  #: True for each free slot; False ends a `take`
        self._given: deque[Run] = deque()
        self._alarm: SimpleQueue[None] = SimpleQueue()
        self._waking = False
        self._idle = 0
        self._stopping = False
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        for _ in range(count):
            self._free.put(True)

    def take(self, most: int) -> int:
        """Wait for a free slot, then take all that are free, up to `most`. 0 once `wake` was called."""
        if not self._free.get():
            return 0
        # Let slots that are about to finish do so: one call for several tasks instead of several calls.
        time.sleep(0)
        taken = 1
        for _ in range(min(self._free.qsize(), most - 1)):
            if not self._free.get():
                self._free.put(False)
                break
            taken += 1
        return taken

    def put_back(self, count: int) -> None:
        """Free slots that were taken and not used."""
        for _ in range(count):
            self._free.put(True)

    def wake(self) -> None:
        """Let a `take` that waits return 0."""
        self._free.put(False)

    def give(self, runs: list[Run]) -> None:
        """Run these in slots that were taken."""
        self._given.extend(runs)
        self._wake_one()

    def stop(self) -> None:
        """No run is given any more: let each thread end when its handler has returned and nothing is left."""
        self._stopping = True
        for _ in self._threads:
            self._alarm.put(None)

    def _wake_one(self) -> None:
        """Let one more thread look for work, unless one is on its way: it will call the next if work is left.

        Waking all at once would have threads wake up for tasks that a running one finishes before they get there.
        """
        with self._lock:
            if self._waking:
                return
            self._waking = True
            if self._idle == 0 and len(self._threads) < self.count:
                name = f"gotasks-{self._queue}-{len(self._threads)}"
                thread = threading.Thread(target=self._main, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
            else:
                self._alarm.put(None)

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for all threads; whether they have ended."""
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _main(self) -> None:
        self._waking = False
        while True:
            try:
                run = self._given.popleft()
            except IndexError:
                if self._stopping:
                    return
                self._sleep()
                continue
            if self._given:
                self._wake_one()
            self._run(run)
            del run  # a slot that waits must not keep the last task's args alive

    def _sleep(self) -> None:
        with self._lock:
            self._idle += 1
        self._alarm.get()
        with self._lock:
            self._idle -= 1
            self._waking = False

    def _run(self, run: Run) -> None:
        try:
            self._work(run)
        except BaseException:
            logger.critical(
                "running task %s failed in gotasks itself; its lease is left to end", run.id, exc_info=True
            )
        if run.ended is not None:
            run.ended.set()
        self._free.put(True)
