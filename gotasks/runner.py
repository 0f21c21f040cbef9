"""Runner: the one place that knows how a chain is run: read the record, then [may start? → handler → checkpoint]*.

A runner works for one queue. Slots call `run_chain` with what the fetcher acquired; every write goes through
`Commits`, so that the same code serves a worker (grouped writes) and `App.drain` (one by one).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from gotasks import codec, context
from gotasks.broker import Capability
from gotasks.calling import NEVER_RETRIED, InvalidResult, call_step, handler_trace, sentence
from gotasks.events import (
    Checkpointed,
    Event,
    Events,
    LeaseLost,
    StepDone,
    StepRetried,
    TaskBuried,
    TaskCrashed,
    TaskReleased,
    TaskStarted,
    TaskSucceeded,
)
from gotasks.job import Job, Step
from gotasks.loop import LoopThread, StepTimeout
from gotasks.run import Answer, Commit, Kind, Run
from gotasks.settings import AckWhen, QueueOptions
from gotasks.task import Failure, Outcome, Task

if TYPE_CHECKING:
    from gotasks.app import App

logger = logging.getLogger("gotasks")

#: Sleeps before a retry stay in the slot up to this long; longer ones give the task back with a delay. Seconds.
LONGEST_SLEEP_IN_SLOT = 1.0

#: Where the broker limits how long a lease can be held, a try is given up after this part of it.
_PART_OF_LONGEST = 0.9


class Commits(Protocol):
    """Carries a runner's writes to the broker, however often it takes."""

    def checkpoint(self, commit: Commit) -> Answer:
        """Write it, and return when it is answered."""

    def settle(self, commit: Commit) -> None:
        """Write it, now or soon; `Runner.settled` is called once it is answered."""


@dataclass(frozen=True)
class Settings:
    """What a runner needs to know about its app and queue. Seconds and bytes."""

    fatal_queue: str
    lease: float
    max_crashes: int
    keep_for: float  #: how long the record of a finished task stays
    max_body: int  #: of a bury
    capabilities: Capability
    jobs: Mapping[str, Job]
    max_lease: float | None = None
    ack_first: bool = False  #: AckWhen.ACQUIRED

    @classmethod
    def of(cls, app: App, options: QueueOptions) -> Settings:
        """Those of an app for one of its queues."""
        return cls(
            fatal_queue=app.fatal_queue,
            lease=options.lease,
            max_crashes=options.max_crashes,
            keep_for=app.keep_for,
            max_body=app.max_body,
            capabilities=app.capabilities,
            jobs=app.jobs,
            max_lease=app.dispatch.limits.max_lease,
            ack_first=options.ack_when is AckWhen.ACQUIRED,
        )

    @property
    def max_state(self) -> int:
        """Bytes of a body at enqueue and at a checkpoint."""
        return self.max_body - codec.ROOM_TO_BURY


class Runner:
    """Runs the chains of one queue. Safe to use from many threads."""

    def __init__(
        self,
        settings: Settings,
        *,
        commits: Commits,
        unfenced: Commits,
        events: Events,
        loop: LoopThread,
        renew: Callable[[Run], bool],
        forget: Callable[[Run], None],
        stopping: threading.Event,
    ) -> None:
        """
        Args:
            commits: carries writes that are fenced by the lease.
            unfenced: carries those of AckWhen.ACQUIRED, where the task has left the broker before its first step.
            loop: runs async handlers.
            renew: extends a lease at once, and says whether it holds.
            forget: told when a run needs its lease no longer.
            stopping: set when no further step may start.
        """
        self._settings = settings
        self._commits = commits
        self._unfenced = unfenced
        self._emit = events.emit
        self._loop = loop
        self._renew = renew
        self._forget = forget
        self._stopping = stopping

    def run_chain(self, run: Run) -> None:
        """Take one delivery as far as it goes: to its end, to the fatal queue, or back to where it came from."""
        job = self._admit(run)
        if job is None or (self._settings.ack_first and not self._ack_first(run)):
            return
        while _task(run).current_handler_index < len(job.steps):
            step = job.steps[_task(run).current_handler_index]
            if not self._may_start(run):
                return
            args = self._try(run, step)
            if args is None or not self._advance(run, job, step, args):
                return
        self._finish(run, _task(run), self._state(run))  # nothing was left to run

    def settled(self, commit: Commit, answer: Answer) -> None:
        """The write that ends a run was answered."""
        if answer is Answer.REJECTED:
            self._settle_refused(commit)
            return
        self._forget(commit.run)
        if answer is Answer.LOST:
            self._emit_lost(commit)
        elif commit.fact is not None:
            self._emit(commit.fact)

    def time_out(self, run: Run) -> None:
        """The running try has had its time, and its thread can't be stopped: settle the task without it.

        Called by the heart after `Run.expire_try`.
        """
        task = _task(run)
        step = self._settings.jobs[task.job_name].steps[task.current_handler_index]
        error = f"still running after {time.monotonic() - run.started:.1f} s"
        tries = task.tries + 1
        if step.retry is not None and tries <= step.retry.max_times:
            delay = step.retry.sleep(tries) if Capability.DELAY in self._settings.capabilities else 0.0
            self._count_try(run, step, tries, delay, error)
            self._give_back(run, "timeout", delay)
        else:
            self._bury(run, Outcome.TIMED_OUT, error, step=step, in_doubt=step.retry is None)

    # -- before the first step ------------------------------------------------------------------

    def _admit(self, run: Run) -> Job | None:
        """Read the record and decide whether it may run here. None: it was settled instead."""
        deaths = run.lease.deaths
        try:
            run.task = task = codec.decode(run.lease.envelope.body)
        except codec.Unreadable as error:
            self._emit_crash(run)
            self._bury_unreadable(run, str(error))
            return None
        self._emit_crash(run)
        if task.moving is not None:
            self._finish_move(run, task, task.moving)
            return None
        job = self._settings.jobs.get(task.job_name)
        problem = self._misfit(task, job)
        if problem is not None:
            # Whatever this worker doesn't know, another one may have started before it went away.
            self._bury(run, *problem, in_doubt=deaths > 0)
            return None
        assert job is not None
        if deaths and task.current_handler_index < len(job.steps):
            step = job.steps[task.current_handler_index]
            if step.retry is None:
                why = "its worker went away; this step may have been started, and isn't reentrant"
                self._bury(run, Outcome.IN_DOUBT, why, step=step, in_doubt=True)
                return None
            if deaths >= self._settings.max_crashes:
                self._bury(
                    run, Outcome.CRASHED, f"its worker went away {deaths} times in this step", step=step
                )
                return None
        context.enter(run)
        self._emit(TaskStarted(run.id, run.queue, job.name, _waited(task, deaths)))
        return job

    def _ack_first(self, run: Run) -> bool:
        """AckWhen.ACQUIRED: the task leaves the broker before its first step."""
        body = run.lease.envelope.body
        commit = Commit(Kind.ACK, run, run.write(body))
        answer = self._commits.checkpoint(commit)
        self._forget(run)
        run.deadline = math.inf
        if answer is not Answer.HELD:
            self._emit_lost(commit)
        return answer is Answer.HELD

    @staticmethod
    def _misfit(task: Task, job: Job | None) -> tuple[Outcome, str] | None:
        if job is None:
            return Outcome.UNKNOWN_JOB, f"no job {task.job_name!r} is registered in this worker"
        if task.steps is not None and task.steps != job.step_names:
            return (
                Outcome.CHAIN_CHANGED,
                f"the steps were {_chain(task.steps)}; now they are {_chain(job.step_names)}",
            )
        if not 0 <= task.current_handler_index <= len(job.steps):
            return Outcome.UNREADABLE, f"index {task.current_handler_index} in a chain of {len(job.steps)}"
        return None

    def _may_start(self, run: Run) -> bool:
        """Whether the next step may be started now; if not, the task is given back or dropped."""
        if run.over:
            return False
        if self._stopping.is_set():
            self._give_back(run, "stop")
            return False
        if run.deadline - time.monotonic() <= self._settings.lease / 3 and not self._renew(run):
            self._give_back(run, "lease")
            return False
        return True

    # -- one step -------------------------------------------------------------------------------

    def _try(self, run: Run, step: Step) -> msgspec.Raw | None:
        """Call the handler until it returns, as often as its `Retry` allows. None: the task was settled."""
        while True:
            began = time.monotonic()
            run.begin_try(self._limit_at(run, step))
            args: msgspec.Raw | None = None
            failure: BaseException | None = None
            try:
                args = call_step(step, codec.decode_args(_task(run).args_map), self._loop, run)
            except BaseException as error:
                failure = error
            counts = run.end_try()
            seconds = time.monotonic() - began
            self._emit(StepDone(run.id, run.queue, run.job, step.name, seconds, failure is None))
            if not counts:
                return None
            if failure is None:
                return args
            if not self._retry(run, step, failure):
                return None

    def _limit_at(self, run: Run, step: Step) -> float:
        """When the heart shall give a try up. Not for an async handler's timeout: its loop cancels that itself."""
        longest = self._settings.max_lease
        limit = math.inf if longest is None else run.held_since + longest * _PART_OF_LONGEST
        return limit if step.timeout is None or step.is_async else min(limit, time.monotonic() + step.timeout)

    def _retry(self, run: Run, step: Step, error: BaseException) -> bool:
        """After a failed try: sleep and say True, or settle the task and say False."""
        late = isinstance(error, StepTimeout)
        retry = step.retry
        tries = _task(run).tries + 1
        retried = (
            retry is not None
            and (late or isinstance(error, retry.on))
            and not isinstance(error, NEVER_RETRIED)
        )
        if retry is None or not retried or tries > retry.max_times:
            outcome = Outcome.TIMED_OUT if late else Outcome.FAILED
            in_doubt = retry is None and (late or isinstance(error, InvalidResult))
            self._bury(
                run, outcome, sentence(error), step=step, trace=handler_trace(error), in_doubt=in_doubt
            )
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise error  # Ctrl-C while App.drain runs a handler
            return False
        delay = retry.sleep(tries)
        self._count_try(run, step, tries, delay, sentence(error))
        if delay > LONGEST_SLEEP_IN_SLOT and Capability.DELAY in self._settings.capabilities:
            self._give_back(run, "retry", delay)
            return False
        self._stopping.wait(delay)
        return self._may_start(run)

    def _count_try(self, run: Run, step: Step, tries: int, delay: float, error: str) -> None:
        run.task = msgspec.structs.replace(_task(run), tries=tries)
        run.body = None
        self._emit(StepRetried(run.id, run.queue, run.job, step.name, tries, delay, error))

    def _advance(self, run: Run, job: Job, step: Step, args: msgspec.Raw) -> bool:
        """Make the step's result durable. True: the chain goes on under this lease."""
        before = _task(run)
        done = before.current_handler_index + 1
        task = msgspec.structs.replace(
            before,
            args_map=args,
            current_handler_index=done,
            steps=job.step_names,
            tries=0,
            updated_at=codec.now(),
        )
        body = codec.encode(task)
        if len(body) > self._settings.max_state:
            self._bury_result(
                run, step, f"its result makes a task of {len(body)} bytes: {self._settings.max_state} fit"
            )
            return False
        if done == len(job.steps):
            self._finish(run, task, body)
            return False
        if self._stopping.is_set():
            run.task, run.body = task, body
            self._give_back(run, "stop")  # one write carries the new state and gives it back
            return False
        commit = Commit(Kind.CHECKPOINT, run, run.write(body))
        hands_off = Capability.HANDOFF in self._settings.capabilities and not self._settings.ack_first
        if hands_off and not run.settle():
            return False
        answer = self._through().checkpoint(commit)
        if answer is Answer.HELD:
            run.task, run.body = task, body
            self._emit(Checkpointed(run.id, run.queue, job.name, job.step_names[done]))
            if hands_off:
                self._forget(run)
            return not hands_off
        if hands_off:
            run.unsettle()
        if answer is Answer.LOST:
            self._forget(run)
            if run.revoke():
                self._emit_lost(commit)
        else:
            self._bury_result(run, step, "the broker refused its result")
        return False

    # -- the last write -------------------------------------------------------------------------

    def _through(self) -> Commits:
        return self._unfenced if self._settings.ack_first else self._commits

    def _state(self, run: Run) -> bytes:
        return run.body if run.body is not None else codec.encode(_task(run))

    def _finish(self, run: Run, task: Task, body: bytes) -> None:
        if run.settle():
            fact = TaskSucceeded(run.id, run.queue, task.job_name, time.monotonic() - run.started)
            commit = Commit(Kind.ACK, run, run.write(body), fact=fact, keep_for=self._settings.keep_for)
            self._through().settle(commit)

    def _give_back(self, run: Run, why: str, delay: float = 0.0) -> None:
        """Release the task with the state that it has."""
        if delay:
            run.task, run.body = msgspec.structs.replace(_task(run), not_before=codec.in_future(delay)), None
        self._release(
            run, self._state(run), TaskReleased(run.id, run.queue, run.job, why, delay), delay=delay
        )

    def _bury_result(self, run: Run, step: Step, error: str) -> None:
        # The step has run, and its result is nowhere: to resume a plain one here is to start it again.
        self._bury(run, Outcome.REJECTED, error, step=step, in_doubt=step.retry is None)

    def _bury(
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
        task = _task(run)
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
        kept = msgspec.structs.replace(task, tries=0, not_before=None)
        body = codec.with_failure(kept, failure, self._settings.max_body)
        self._bury_body(run, body, failure)

    def _bury_unreadable(self, run: Run, error: str) -> None:
        in_doubt = run.lease.deaths > 0
        failure = Failure(
            outcome=Outcome.UNREADABLE, error=codec.clean(error), at=codec.now(), in_doubt=in_doubt
        )
        body = codec.wrap(run.id, run.queue, run.lease.envelope.body, failure, self._settings.max_body)
        self._bury_body(run, body, failure)

    def _bury_body(self, run: Run, body: bytes, failure: Failure) -> None:
        seconds = time.monotonic() - run.started
        fact = TaskBuried(
            run.id, run.queue, run.job, failure.step, failure.outcome.value, failure.error, seconds
        )
        if Capability.ATOMIC_MOVE in self._settings.capabilities or self._settings.ack_first:
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

    def _finish_move(self, run: Run, task: Task, queue: str) -> None:
        body = codec.encode(msgspec.structs.replace(task, moving=None))
        self._release(run, body, TaskReleased(run.id, run.queue, run.job, "moved", 0.0), queue=queue)

    def _release(
        self, run: Run, body: bytes, fact: Event, *, delay: float = 0.0, queue: str | None = None
    ) -> None:
        if run.settle():
            write = run.write(body, delay=delay, queue=queue)
            self._through().settle(Commit(Kind.RELEASE, run, write, fact=fact))

    def _settle_refused(self, commit: Commit) -> None:
        """The broker rejects a body that gotasks had allowed: put the task where a person sees it.

        First with the reason, then (should that be refused too) with the body that the broker itself gave.
        """
        run = commit.run
        run.refusals += 1
        error = "the broker refused its body"
        if run.refusals > 2:
            logger.error(
                "task %s: the broker refuses even the body that it gave; its lease is left to end", run.id
            )
            self._forget(run)
            return
        failure = Failure(
            outcome=Outcome.REJECTED, error=error, at=codec.now(), in_doubt=commit.kind is Kind.ACK
        )
        body = run.lease.envelope.body
        if run.refusals == 1 and run.task is not None:
            body = codec.with_failure(run.task, failure, self._settings.max_body)
        seconds = time.monotonic() - run.started
        fact = TaskBuried(run.id, run.queue, run.job, "", failure.outcome.value, error, seconds)
        write = run.write(body, queue=self._settings.fatal_queue)
        self._through().settle(Commit(Kind.RELEASE, run, write, fact=fact))

    # -- facts ----------------------------------------------------------------------------------

    def _emit_lost(self, commit: Commit) -> None:
        run = commit.run
        self._emit(LeaseLost(run.id, run.queue, run.job, commit.attempts <= 1))

    def _emit_crash(self, run: Run) -> None:
        if run.lease.deaths:
            self._emit(TaskCrashed(run.id, run.queue, run.job, run.lease.deaths))


def _task(run: Run) -> Task:
    assert run.task is not None, "its body was read"
    return run.task


def _waited(task: Task, deaths: int) -> float | None:
    """Seconds since a new task became ready; None for one that was begun before."""
    if deaths or task.tries or task.current_handler_index:
        return None
    return codec.age(task.not_before or task.updated_at)


def _chain(steps: tuple[str, ...]) -> str:
    return " → ".join(steps)
