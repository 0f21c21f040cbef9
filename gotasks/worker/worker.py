"""Worker: wires the parts of one worker process, and stops them in the right order.

fetcher (one a queue): acquires as many tasks as slots are free
    → slots (max_limit threads a queue; async handlers on one loop thread)
        → Runner.run_chain: decode → check → [may start? → handler → checkpoint]* → ack
            → committer (one thread): groups the writes of all slots into one call for each kind and queue
heart (one thread): extends every lease that isn't settled yet
gauge (one thread): measures the queues
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gotasks.errors import BrokerError, ConfigurationError, Unsupported
from gotasks.loop import LoopThread
from gotasks.run import Answer, Commit, Run
from gotasks.run_settings import RunSettings
from gotasks.runner import Runner
from gotasks.settings import QueueOptions
from gotasks.settler import Commits, Settler
from gotasks.worker.commits import GroupedCommits, UnfencedCommits
from gotasks.worker.committer import Committer
from gotasks.worker.fetcher import Fetcher
from gotasks.worker.gauge import Gauge
from gotasks.worker.heart import Heart, Pulse
from gotasks.worker.service import Service
from gotasks.worker.slots import Slots

if TYPE_CHECKING:
    from typing_extensions import Self

    from gotasks.app import App

logger = logging.getLogger("gotasks")

#: However little of the grace time is left, what handlers have finished is written for this long. Seconds.
_LEAST_FLUSH = 5.0

#: An interrupt that comes just before an `acquire` begins isn't heard: it is repeated that often. Seconds.
_BETWEEN_INTERRUPTS = 0.05

#: What `Thread.join` can't take is cut to this: about 30 years. Seconds.
_LONGEST_GRACE = 1e9


class Worker:
    """Serves some queues of an app in this process. `with worker: …`, or `start` and `stop`; once only."""

    def __init__(self, app: App, queues: Mapping[str, QueueOptions], *, grace: float) -> None:
        """Raises ConfigurationError if no job is registered, Unsupported if the broker can't serve the options."""
        self.jobs = app.jobs
        self.queues = queues
        if not self.jobs:
            raise ConfigurationError(
                "no job is registered, so every task would end in the fatal queue: import the modules that register "
                "jobs, by App(include=['shop.tasks']) or --include shop.tasks"
            )
        dispatch = app.dispatch
        for name, options in queues.items():
            _check(name, options, dispatch.limits.max_lease)
        self._app = app
        self._dispatch = dispatch
        self._grace = min(grace, _LONGEST_GRACE)
        self._stopping = threading.Event()
        self._stopped = False
        self._drained = True
        self._loop = LoopThread()
        self._committer = Committer(dispatch, app.events, answered=self._answered)
        self._heart = Heart(dispatch, app.events, self._loop)
        self._gauge = Gauge(
            dispatch, app.events, {name: each.monitor_interval for name, each in queues.items()}
        )
        self._settlers: dict[str, Settler] = {}
        self._grouped: dict[str, GroupedCommits] = {}
        self._slots: dict[str, Slots] = {}
        self._fetchers: list[Fetcher] = []
        for name, options in queues.items():
            self._serve(name, options)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start working. Returns at once."""
        self._warn()
        self._app.events.add_source(self)
        for service in self._services():
            service.start()

    def stop(self) -> bool:
        """Stop cleanly; blocks until all is written, or the grace time is over. Idempotent.

        Returns whether every handler ended in time. One that didn't runs on, but its task is no longer this
        worker's: it counts as a crash (guarantees G4 and G5).
        """
        if self._stopped:
            return self._drained
        self._stopped = True
        end = time.monotonic() + self._grace
        # 1. No step is started from here on: a chain is given back when its running handler has returned.
        self._stopping.set()
        # 2. Fetchers, all at once. What an acquire under way still brings is given to the slots, which release it.
        for fetcher in self._fetchers:
            fetcher.stop()
        for fetcher in self._fetchers:
            while not fetcher.join(_BETWEEN_INTERRUPTS):
                fetcher.interrupt()
        # 3. Slots drain, while committer and heart still serve them.
        for slots in self._slots.values():
            slots.stop()
        for slots in self._slots.values():
            slots.join(end - time.monotonic())
        drained = self._drained = all(slots.join(0) for slots in self._slots.values())
        if not drained:
            logger.error("handlers still run after %g s of grace; their tasks count as crashed", self._grace)
            self._heart.abandon()
        # 4. Committer: every write is answered. The heart keeps the leases until then.
        self._committer.stop()
        if not self._committer.join(max(end - time.monotonic(), _LEAST_FLUSH)):
            logger.error(
                "the broker doesn't answer; tasks of this worker will come back when their leases are over"
            )
        # 5. Heart and gauge. The broker belongs to the app, which closes it.
        self._heart.stop()
        self._gauge.stop()
        self._heart.join(_LEAST_FLUSH)
        self._gauge.join(_LEAST_FLUSH)
        self._loop.close()
        return drained

    @property
    def healthy(self) -> bool:
        """Whether every thread that should run does."""
        return self._stopped or not any(service.join(0) for service in self._services())

    def in_flight(self, queue: str) -> int:
        """How many tasks of `queue` this worker holds."""
        return self._heart.in_flight(queue)

    @property
    def loop_stalled(self) -> bool:
        """Whether the event loop of the async handlers has made no progress for the length of a lease."""
        return self._heart.loop_stalled

    def _services(self) -> list[Service]:
        return [self._committer, self._heart, self._gauge, *self._fetchers]

    def _serve(self, name: str, options: QueueOptions) -> None:
        dispatch, events = self._dispatch, self._app.events
        settings = RunSettings.of(self._app, options)
        grouped = self._grouped[name] = GroupedCommits(self._committer, options.max_limit)
        commits: Commits = grouped
        if settings.ack_first:
            commits = UnfencedCommits(grouped, dispatch, events, self._settled)
        settler = self._settlers[name] = Settler(settings, commits, events, forget=self._forget)
        runner = Runner(
            settings,
            settler,
            commits,
            events=events,
            loop=self._loop,
            renew=self._heart.renew,
            forget=self._forget,
            stopping=self._stopping,
        )
        self._heart.serve(name, Pulse(options.lease, runner))
        slots = self._slots[name] = Slots(name, options.max_limit, runner.run_chain)
        self._fetchers.append(
            Fetcher(
                name,
                dispatch,
                slots,
                events,
                lease_for=options.lease,
                suspect_at=max(options.max_crashes - 1, 1),
                begin=self._heart.begin,
            )
        )

    def _answered(self, commit: Commit, answer: Answer) -> None:
        """On the committer's thread: a write was answered."""
        if commit.answers is not None:
            commit.answers.put(answer)
        else:
            self._settled(commit, answer)

    def _forget(self, run: Run) -> None:
        self._heart.forget(run)
        self._grouped[run.queue].forget(run)

    def _settled(self, commit: Commit, answer: Answer) -> None:
        self._settlers[commit.run.queue].settled(commit, answer)

    def _warn(self) -> None:
        try:
            for warning in self._dispatch.broker.warnings():
                logger.warning("%s", warning)
        except BrokerError as error:
            logger.warning("the broker can't be asked for its settings yet: %s", error)


def _check(name: str, options: QueueOptions, longest: float | None) -> None:
    if longest is not None and options.lease > longest:
        raise Unsupported(
            f"queue {name!r}: this broker holds a lease {longest:g} s at the most, not {options.lease:g}"
        )
