"""Heart: keeps the leases of a worker's runs alive, and ends tries whose time is up."""

from __future__ import annotations

import math
import time

from gotasks.broker import Lease
from gotasks.dispatch import Dispatch
from gotasks.events import BrokerDown, BrokerUp, Events, LeaseLost, LoopStalled
from gotasks.loop import LoopThread
from gotasks.run import Run
from gotasks.runner import Runner
from gotasks.worker.service import Service


class Pulse:
    """The runs of one queue, and how long their leases are."""

    def __init__(self, lease_for: float, runner: Runner) -> None:
        self.lease_for = lease_for
        self.runner = runner
        self.runs: dict[str, Run] = {}  # by receipt; single operations on a dict need no lock
        self.due = time.monotonic() + lease_for / 3


class Heart(Service):
    """One thread for all queues of a worker."""

    def __init__(self, dispatch: Dispatch, events: Events, loop: LoopThread) -> None:
        super().__init__("heart")
        self._dispatch = dispatch
        self._events = events
        self._loop = loop
        self._pulses: dict[str, Pulse] = {}
        self.loop_stalled = False  #: the event loop made no progress for the length of the shortest lease
        self._failures = 0

    def serve(self, queue: str, pulse: Pulse) -> None:
        """Keep the leases of this queue. Before `start`."""
        self._pulses[queue] = pulse

    def begin(self, run: Run) -> None:
        """Keep this run's lease from now on. Any thread."""
        self._pulses[run.queue].runs[run.lease.receipt] = run

    def forget(self, run: Run) -> None:
        """This run needs its lease no longer. Any thread."""
        self._pulses[run.queue].runs.pop(run.lease.receipt, None)

    def in_flight(self, queue: str) -> int:
        """How many leases of `queue` are kept."""
        return len(self._pulses[queue].runs)

    def renew(self, run: Run) -> bool:
        """Extend one lease at once; whether it holds. Blocks. Any thread."""
        return self._extend(self._pulses[run.queue], [run]) and not run.over

    def abandon(self) -> None:
        """Keep no lease any more: what still runs is somebody else's soon."""
        for pulse in self._pulses.values():
            for run in list(pulse.runs.values()):
                run.revoke()
            pulse.runs.clear()

    def main(self) -> None:
        shortest = min((pulse.lease_for for pulse in self._pulses.values()), default=30.0)
        while not self.stopping.wait(min(shortest / 6, 1.0)):
            now = time.monotonic()
            for pulse in self._pulses.values():
                self._expire(pulse)
                if pulse.due <= now:
                    # Fresh leases are left alone: each is extended by the time a third of it is gone.
                    runs = [run for run in list(pulse.runs.values()) if self._fades(run, pulse, now)]
                    kept = self._extend(pulse, runs)
                    pulse.due = now + (pulse.lease_for / 3 if kept else min(pulse.lease_for / 12, 1.0))
            self._watch_loop(shortest)

    def _extend(self, pulse: Pulse, runs: list[Run]) -> bool:
        """Extend these leases; whether the broker answered."""
        size = self._dispatch.limits.max_batch
        for start in range(0, len(runs), size):
            part = runs[start : start + size]
            leases: list[Lease] = [run.lease for run in part]
            sent = time.monotonic()
            try:
                lost = self._dispatch.broker.extend(leases, lease_for=pulse.lease_for)
            except Exception as error:
                self._failures += 1
                self._events.emit(BrokerDown.by(error, "extend", self._failures))
                return False
            if self._failures:
                self._events.emit(BrokerUp("extend", self._failures))
                self._failures = 0
            for run in part:
                if run.lease.receipt not in lost:
                    run.deadline = math.inf if run.lease.deadline == math.inf else sent + pulse.lease_for
                elif run.revoke():  # not while its last write is on its way: that one will be told
                    self.forget(run)
                    self._events.emit(LeaseLost(run.id, run.queue, run.job, True))
        return True

    @staticmethod
    def _fades(run: Run, pulse: Pulse, now: float) -> bool:
        """Whether a lease has to be extended in this beat. One without time is, to learn whether it is lost."""
        if run.unfenced:
            return False
        return run.lease.deadline == math.inf or run.deadline - now < pulse.lease_for * 0.9

    def _expire(self, pulse: Pulse) -> None:
        for run in list(pulse.runs.values()):
            if run.limit_at < math.inf and run.expire_try():
                pulse.runner.time_out(run)

    def _watch_loop(self, lease: float) -> None:
        seconds = self._loop.stalled()
        stalled = seconds > lease
        if stalled and not self.loop_stalled:
            self._events.emit(LoopStalled(seconds, self._loop.stack()))
        self.loop_stalled = stalled
