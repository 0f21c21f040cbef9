"""Fetcher: acquires tasks of one queue whenever slots are free, and gives them to the slots."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from gotasks import codec
from gotasks.broker import Lease
from gotasks.dispatch import Backoff, Dispatch
from gotasks.errors import BrokerClosed
from gotasks.events import BrokerDown, BrokerUp, Events
from gotasks.run import Run
from gotasks.worker.service import Service
from gotasks.worker.slots import Slots

#: How long one `acquire` waits for a task. A stop waits for it, and an idle worker asks that often. Seconds.
WAIT = 1.0

#: An `acquire` that fails after more than this was waiting for a task, or for an answer. Seconds.
_STOOD = 0.1

#: How often a fetcher that waits for something else looks whether it shall stop. Seconds.
_GLANCE = 0.2


class Fetcher(Service):
    """One thread a queue, so that none starves another."""

    def __init__(
        self,
        queue: str,
        dispatch: Dispatch,
        slots: Slots,
        events: Events,
        *,
        lease_for: float,
        suspect_at: int,
        begin: Callable[[Run], None],
    ) -> None:
        """`suspect_at`: deaths that make a task a suspect. `begin` is told of each run before its slot sees it."""
        super().__init__(f"fetcher-{queue}")
        self._queue = queue
        self._dispatch = dispatch
        self._slots = slots
        self._events = events
        self._lease_for = lease_for
        self._suspect_at = suspect_at
        self._begin = begin

    def stop(self) -> None:
        super().stop()
        self._slots.wake()
        self.interrupt()

    def interrupt(self) -> None:
        """Let an `acquire` that waits return. Any thread."""
        self._dispatch.broker.interrupt(self._queue)

    def main(self) -> None:
        largest = self._dispatch.limits.max_batch
        backoff, failures = Backoff(), 0
        while not self.stopping.is_set():
            free = self._slots.take(largest)
            if free == 0:
                break
            began = time.monotonic()
            try:
                leases = self._acquire(free)
            except BrokerClosed:
                break
            except Exception as error:
                # Whatever it is: a worker that gives up loses more than one that asks again.
                failures += 1
                self._events.emit(BrokerDown.by(error, f"acquire {self._queue}", failures))
                self._slots.put_back(free)
                if time.monotonic() - began > _STOOD:  # the server was there: this isn't the outage of before
                    backoff = Backoff()
                self.stopping.wait(backoff.delay())
                continue
            if failures:
                self._events.emit(BrokerUp(f"acquire {self._queue}", failures))
                backoff, failures = Backoff(), 0
            runs = [Run(lease) for lease in leases]
            suspect = self._suspect(runs)
            for run in runs:
                self._begin(run)
            self._slots.give(runs)
            self._slots.put_back(free - len(runs))
            if suspect is not None:
                self._wait_for(suspect)

    def _suspect(self, runs: list[Run]) -> threading.Event | None:
        """The end of a task that may be what kills its workers: one more death would send it to the fatal queue.

        Whatever runs beside it dies with it, and is counted with it. So only one such task is run at a time, others
        are given back, and nothing more is taken up meanwhile.
        """
        suspects = [
            run
            for run in runs
            if run.lease.deaths + codec.crashes(run.lease.envelope.body) >= self._suspect_at
        ]
        if not suspects:
            return None
        for run in suspects[1:]:
            run.deferred = True
        suspects[0].ended = threading.Event()
        return suspects[0].ended

    def _wait_for(self, ended: threading.Event) -> None:
        # Not for ever: a long task whose worker was merely restarted must not idle the other slots.
        end = time.monotonic() + self._lease_for
        while not self.stopping.is_set() and time.monotonic() < end and not ended.wait(_GLANCE):
            pass

    def _acquire(self, limit: int) -> list[Lease]:
        return self._dispatch.broker.acquire(self._queue, limit=limit, wait=WAIT, lease_for=self._lease_for)
