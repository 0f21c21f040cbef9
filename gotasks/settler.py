"""Settler: the write that ends a run: finished, given back, buried, or moved on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from gotasks import codec
from gotasks.events import Event, Events, LeaseLost, TaskBuried, TaskReleased, TaskSucceeded
from gotasks.job import Step
from gotasks.run import Answer, Commit, Kind, Run
from gotasks.run_settings import RunSettings
from gotasks.task import Failure, Outcome, Task

logger = logging.getLogger("gotasks")


class Commits(Protocol):
    """Carries the writes of runs to the broker, however often it takes."""

    def checkpoint(self, commit: Commit) -> Answer:
        """Write it, and return when it is answered."""

    def settle(self, commit: Commit) -> None:
        """Write it, now or soon; `Settler.settled` is called once it is answered."""


class Settler:
    """Ends the runs of one queue. Safe to use from many threads."""

    def __init__(
        self, settings: RunSettings, commits: Commits, events: Events, *, forget: Callable[[Run], None]
    ) -> None:
        """`forget` is told when a run needs its lease no longer."""
        self._settings = settings
        self._commits = commits
        self._emit = events.emit
        self._forget = forget

    def settled(self, commit: Commit, answer: Answer) -> None:
        """The write that ends a run was answered."""
        if answer is Answer.REJECTED:
            self._settle_refused(commit)
            return
        self._forget(commit.run)
        if answer is Answer.LOST:
            self.emit_lost(commit)
        elif commit.fact is not None:
            self._emit(commit.fact)

    @staticmethod
    def state(run: Run) -> bytes:
        """The run's latest state as a body."""
        return run.body if run.body is not None else codec.encode(run.known)

    def finish(self, run: Run, task: Task, body: bytes) -> None:
        if run.settle():
            fact = TaskSucceeded(run.id, run.queue, task.job_name, time.monotonic() - run.started)
            commit = Commit(Kind.ACK, run, run.write(body), fact=fact, keep_for=self._settings.keep_for)
            self._commits.settle(commit)

    def give_back(self, run: Run, why: str, delay: float = 0.0) -> None:
        """Release the task with the state that it has."""
        if delay:
            run.task, run.body = msgspec.structs.replace(run.known, not_before=codec.in_future(delay)), None
        self._release(run, self.state(run), TaskReleased(run.id, run.queue, run.job, why, delay), delay=delay)

    def bury_result(self, run: Run, step: Step, error: str) -> None:
        # The step has run, and its result is nowhere: to resume a plain one here is to start it again.
        self.bury(run, Outcome.REJECTED, error, step=step, in_doubt=step.retry is None)

    def bury(
        self,
        run: Run,
        outcome: Outcome,
        error: str,
        *,
        step: Step | None = None,
        trace: str = "",
        in_doubt: bool = False,
    ) -> None:
        """Move the task to the fatal queue: its state as it was before the failing step, and why it failed."""
        task = run.known
        if step is not None:
            name = step.name
        elif task.steps is not None and 0 <= task.current_handler_index < len(task.steps):
            name = task.steps[task.current_handler_index]
        else:
            name = ""
        failure = Failure(
            outcome=outcome,
            error=codec.clean(error),
            at=codec.now(),
            step=name,
            traceback=codec.clean(trace),
            in_doubt=in_doubt,
        )
        kept = msgspec.structs.replace(task, tries=0, crashes=0, not_before=None)
        body = codec.with_failure(kept, failure, self._settings.max_body)
        self._bury_body(run, body, failure)

    def bury_unreadable(self, run: Run, error: str) -> None:
        in_doubt = run.lease.deaths > 0
        failure = Failure(
            outcome=Outcome.UNREADABLE, error=codec.clean(error), at=codec.now(), in_doubt=in_doubt
        )
        body = codec.wrap(run.id, run.queue, run.lease.envelope.body, failure, self._settings.max_body)
        self._bury_body(run, body, failure)

    def _bury_body(self, run: Run, body: bytes, failure: Failure) -> None:
        fact = _buried(run, failure)
        if self._settings.moves_at_once or self._settings.ack_first:
            self._release(run, body, fact, queue=self._settings.fatal_queue)
            return
        # The move takes two writes. The first marks the task where it is; whoever acquires it then does the
        # second, so a copy that a crash leaves behind between storing there and removing here never runs.
        try:
            marked = msgspec.structs.replace(codec.decode(body), moving=self._settings.fatal_queue)
        except codec.Unreadable:  # bytes as they came: nothing that could run, so a left-over is harmless
            self._release(run, body, fact, queue=self._settings.fatal_queue)
        else:
            self._release(run, codec.encode(marked), fact)

    def finish_move(self, run: Run, task: Task, queue: str) -> None:
        body = codec.encode(msgspec.structs.replace(task, moving=None))
        self._release(run, body, TaskReleased(run.id, run.queue, run.job, "moved", 0.0), queue=queue)

    def _release(
        self, run: Run, body: bytes, fact: Event, *, delay: float = 0.0, queue: str | None = None
    ) -> None:
        if run.settle():
            write = run.write(body, delay=delay, queue=queue)
            self._commits.settle(Commit(Kind.RELEASE, run, write, fact=fact))

    def _settle_refused(self, commit: Commit) -> None:
        """The broker rejects a body that gotasks had allowed: put the task where a person sees it.

        First with the reason, then (should that be refused too) with the body that the broker itself gave.
        """
        run = commit.run
        run.refusals += 1
        if run.refusals > 2:
            logger.error(
                "task %s: the broker refuses even the body that it gave; its lease is left to end", run.id
            )
            self._forget(run)
            return
        failure = Failure(
            outcome=Outcome.REJECTED,
            error="the broker refused its body",
            at=codec.now(),
            in_doubt=commit.kind is Kind.ACK,
        )
        body = run.lease.envelope.body
        if run.refusals == 1 and run.task is not None:
            body = codec.with_failure(run.task, failure, self._settings.max_body)
        fact = _buried(run, failure)
        write = run.write(body, queue=self._settings.fatal_queue)
        self._commits.settle(Commit(Kind.RELEASE, run, write, fact=fact))

    def emit_lost(self, commit: Commit) -> None:
        run = commit.run
        self._emit(LeaseLost(run.id, run.queue, run.job, commit.attempts <= 1))


def _buried(run: Run, failure: Failure) -> TaskBuried:
    seconds = time.monotonic() - run.started
    return TaskBuried(run.id, run.queue, run.job, failure.step, failure.outcome.value, failure.error, seconds)
