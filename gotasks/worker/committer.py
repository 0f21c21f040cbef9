"""Committer: carries all writes of a worker to the broker, grouped into one call for each kind and queue.

There is no timer. The first write goes at once, and what arrives while it is on its way is the next group; so a
busy worker groups by itself and an idle one doesn't wait. A write whose outcome is unknown goes again, with backoff,
however long that takes: its receipt fences it, so a repeat can't harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue

from gotasks.dispatch import Backoff, Dispatch
from gotasks.errors import BrokerClosed, BrokerUnavailable, Rejected
from gotasks.events import BrokerDown, BrokerUp, Events
from gotasks.run import Answer, Commit, Kind
from gotasks.worker.service import Service

#: The bodies of one call make up at most this many bytes, unless a single one is larger.
LARGEST_CALL = 4 * 1024 * 1024


class Committer(Service):
    """One thread. `put` hands it a commit; `answered` is called on its thread with each commit's answer."""

    def __init__(
        self, dispatch: Dispatch, events: Events, *, answered: Callable[[Commit, Answer], None]
    ) -> None:
        super().__init__("committer")
        self._dispatch = dispatch
        self._events = events
        self._answered = answered
        self._inbox: SimpleQueue[Commit | None] = SimpleQueue()
        self._waiting: list[Commit] = []  #: unanswered, to be sent (again)
        self._failures = 0  #: calls in a row that the server didn't answer
        self._told: set[str] = set()  #: of which kinds of writes it was said that they fail
        self._backoff = Backoff()
        self._away_until = 0.0  #: monotonic; until then nothing is sent

    def put(self, commit: Commit) -> None:
        """Take a commit. Any thread."""
        self._inbox.put(commit)

    def stop(self) -> None:
        """Let the thread end when all commits are answered. Nothing may be put after this."""
        super().stop()
        self._inbox.put(None)

    def main(self) -> None:
        while True:
            self._waiting += self._collect()
            now = time.monotonic()
            if now >= self._away_until:
                due = [commit for commit in self._waiting if commit.due <= now]
                self._waiting = [commit for commit in self._waiting if commit.due > now]
                for commits in self._calls(due):
                    self._send(commits)
            if self.stopping.is_set() and not self._waiting and self._inbox.empty():
                return

    def _collect(self) -> list[Commit]:
        """What has arrived; waits for something to arrive, or for the moment to send something again."""
        timeout = None
        if self._waiting:
            moment = max(self._away_until, min(commit.due for commit in self._waiting))
            timeout = max(0.0, moment - time.monotonic())
        try:
            arrived = [self._inbox.get(timeout=timeout)]
        except Empty:
            return []
        arrived += [self._inbox.get() for _ in range(self._inbox.qsize())]
        return [commit for commit in arrived if commit is not None]

    def _calls(self, commits: Sequence[Commit]) -> Iterator[list[Commit]]:
        """The commits as calls: of one kind and queue each, and no larger than the broker takes."""
        same: dict[tuple[Kind, str], list[Commit]] = {}
        for commit in commits:
            if commit.alone:
                yield [commit]
            else:
                same.setdefault((commit.kind, commit.run.queue), []).append(commit)
        for key in sorted(same):
            call: list[Commit] = []
            size = 0
            for commit in same[key]:
                size += len(commit.write.body)
                if call and (len(call) >= self._dispatch.limits.max_batch or size > LARGEST_CALL):
                    yield call
                    call, size = [], len(commit.write.body)
                call.append(commit)
            yield call

    def _send(self, commits: list[Commit]) -> None:
        if time.monotonic() < self._away_until:  # an earlier call of the same round found the server away
            self._waiting += commits
            return
        for commit in commits:
            commit.attempts += 1
        try:
            lost = self._call(commits)
        except BrokerClosed:
            # The app was closed under its worker: the leases end by themselves.
            self._answer(commits, lost={commit.write.lease.receipt for commit in commits})
        except BrokerUnavailable as error:
            self._failures += 1
            self._away_until = time.monotonic() + self._backoff.delay()
            self._waiting += commits
            self._tell(commits, error, self._failures)
        except Exception as error:
            self._one_by_one(commits, error)
        else:
            if self._told:
                for what in self._told:
                    self._events.emit(BrokerUp(what, self._failures))
                self._told.clear()
                self._failures, self._backoff = 0, Backoff()
            self._answer(commits, lost)

    def _call(self, commits: Sequence[Commit]) -> frozenset[str]:
        kind, broker = commits[0].kind, self._dispatch.broker
        writes = [commit.write for commit in commits]
        if kind is Kind.CHECKPOINT:
            return broker.checkpoint(writes)
        if kind is Kind.RELEASE:
            return broker.release(writes)
        return broker.ack(writes, keep_for=commits[0].keep_for)  # one queue has one retention

    def _answer(self, commits: Sequence[Commit], lost: set[str] | frozenset[str]) -> None:
        for commit in commits:
            self._answered(commit, Answer.LOST if commit.write.lease.receipt in lost else Answer.HELD)

    def _one_by_one(self, commits: Sequence[Commit], error: Exception) -> None:
        """The broker refuses some, or fails in a way that it doesn't foresee: the others go without these."""
        refused = error.ids if isinstance(error, Rejected) else frozenset()
        for commit in commits:
            if commit.run.id in refused:
                self._answered(commit, Answer.REJECTED)
                continue
            if not refused:
                # Whichever it is that the broker chokes on, it mustn't hold up its neighbours.
                commit.alone = True
                commit.due = time.monotonic() + min(0.05 * 2 ** min(commit.attempts, 6), 2.0)
            self._waiting.append(commit)
        if not refused:
            self._tell(commits, error, max(commit.attempts for commit in commits))

    def _tell(self, commits: Sequence[Commit], error: Exception, attempt: int) -> None:
        what = f"{commits[0].kind.name.lower()} {commits[0].run.queue}"
        self._told.add(what)
        self._events.emit(BrokerDown.by(error, what, attempt))
