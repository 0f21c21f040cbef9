"""The ways in which a runner's writes reach the broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from gotasks.broker import Envelope
from gotasks.dispatch import Backoff, Dispatch
from gotasks.errors import BrokerClosed, Rejected
from gotasks.events import BrokerDown, Events
from gotasks.run import Answer, Commit, Kind, Run
from gotasks.settler import Commits
from gotasks.worker.committer import Committer

Settled = Callable[[Commit, Answer], None]


class GroupedCommits:
    """Through the committer. A checkpoint holds its slot until it is answered; a last write frees it at once.

    At most `most` last writes of a queue are unanswered; then slots wait, so that a slow server slows the worker.
    """

    def __init__(self, committer: Committer, most: int) -> None:
        self._committer = committer
        self._tokens: SimpleQueue[None] = SimpleQueue()
        for _ in range(most):
            self._tokens.put(None)

    def checkpoint(self, commit: Commit) -> Answer:
        answers = commit.answers = SimpleQueue()
        self._committer.put(commit)
        return answers.get()

    def settle(self, commit: Commit) -> None:
        run = commit.run
        # Slots wait here. The heart (which times out) and the committer (which is told of refusals) never may.
        if not run.timed_out and not run.refusals:
            self._tokens.get()
            run.holds_token = True
        self._committer.put(commit)

    def forget(self, run: Run) -> None:
        """The run's last write was answered for good."""
        if run.holds_token:
            run.holds_token = False
            self._tokens.put(None)


class DirectCommits:
    """One by one on the caller's thread, for `App.drain`. Raises BrokerUnavailable when patience is over."""

    def __init__(self, dispatch: Dispatch, settled: Settled) -> None:
        self._dispatch = dispatch
        self._settled = settled

    def checkpoint(self, commit: Commit) -> Answer:
        broker, write = self._dispatch.broker, commit.write
        calls = {
            Kind.CHECKPOINT: lambda: broker.checkpoint([write]),
            Kind.RELEASE: lambda: broker.release([write]),
            Kind.ACK: lambda: broker.ack([write], keep_for=commit.keep_for),
        }

        def call() -> frozenset[str]:
            commit.attempts += 1
            return calls[commit.kind]()

        try:
            lost = self._dispatch.repeat(commit.kind.name.lower(), call)
        except Rejected:
            return Answer.REJECTED
        return Answer.LOST if lost else Answer.HELD

    def settle(self, commit: Commit) -> None:
        self._settled(commit, self.checkpoint(commit))


class UnfencedCommits:
    """For AckWhen.ACQUIRED: the task has left the broker, so there is nothing to write but what comes back."""

    def __init__(self, fenced: Commits, dispatch: Dispatch, events: Events, settled: Settled) -> None:
        """`fenced` carries the ack before the first step."""
        self._fenced = fenced
        self._dispatch = dispatch
        self._events = events
        self._settled = settled

    def checkpoint(self, commit: Commit) -> Answer:
        return self._fenced.checkpoint(commit) if commit.kind is Kind.ACK else Answer.HELD

    def settle(self, commit: Commit) -> None:
        if not commit.run.unfenced:  # it can't run here, which was seen before its ack: it is held still
            self._fenced.settle(commit)
            return
        if commit.run.timed_out:  # on the heart's thread, which never may wait
            threading.Thread(
                target=self._settle, args=(commit,), name="gotasks-unfenced", daemon=True
            ).start()
        else:
            self._settle(commit)

    def _settle(self, commit: Commit) -> None:
        if commit.kind is Kind.RELEASE:
            self._enqueue(commit)
        self._settled(commit, Answer.HELD)

    def _enqueue(self, commit: Commit) -> None:
        write, envelope = commit.write, commit.write.lease.envelope
        again = Envelope(
            id=envelope.id,
            queue=write.queue or envelope.queue,
            body=write.body,
            delay=write.delay,
            priority=envelope.priority,
        )
        backoff, failures = Backoff(), 0
        while True:
            try:
                self._dispatch.broker.enqueue([again])
                return
            except BrokerClosed:
                raise
            except Exception as error:  # a full server, too: the task is nowhere but here
                failures += 1
                self._events.emit(BrokerDown.by(error, f"enqueue {again.queue}", failures))
                time.sleep(backoff.delay())
