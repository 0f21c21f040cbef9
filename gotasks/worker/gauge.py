"""Gauge: asks the broker now and then how much each queue holds."""

from __future__ import annotations

import time
from collections.abc import Mapping

from gotasks.dispatch import Dispatch
from gotasks.events import Events, QueueMeasured
from gotasks.worker.service import Service


class Gauge(Service):
    """One thread for all queues of a worker; each is measured at its own interval."""

    def __init__(self, dispatch: Dispatch, events: Events, intervals: Mapping[str, float]) -> None:
        """`intervals`: seconds between two measurements, by queue."""
        super().__init__("gauge")
        self._dispatch = dispatch
        self._events = events
        self._intervals = intervals

    def main(self) -> None:
        due = dict.fromkeys(self._intervals, 0.0)
        while due:
            for queue in [queue for queue, moment in due.items() if moment <= time.monotonic()]:
                self._measure(queue)
                due[queue] = time.monotonic() + self._intervals[queue]
            if self.stopping.wait(max(0.0, min(due.values()) - time.monotonic())):
                return

    def _measure(self, queue: str) -> None:
        try:
            stats = self._dispatch.broker.stats(queue)
        except Exception:  # the fetcher of the same queue says that the server is away
            self._events.emit(QueueMeasured(queue, None, None, None))
            return
        self._events.emit(QueueMeasured(queue, stats.ready, stats.scheduled, stats.leased))
