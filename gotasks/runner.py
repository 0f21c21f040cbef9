"""Runner: the one place that knows how a chain is run: read the record, then [may start? → handler → checkpoint]*.

A runner works for one queue. Slots call `run_chain` with what the fetcher acquired; every write goes through
`Commits`, so that the same code serves a worker (grouped writes) and `App.drain` (one by one).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import msgspec

from gotasks import codec, context
from gotasks.calling import NEVER_RETRIED, InvalidResult, call_step, handler_trace, sentence
from gotasks.events import (
    Checkpointed,
    Events,
    StepDone,
    StepRetried,
    TaskCrashed,
    TaskStarted,
)
from gotasks.job import Job, Step
from gotasks.loop import LoopThread, StepTimeout
from gotasks.run import Answer, Commit, Kind, Run
from gotasks.run_settings import RunSettings
from gotasks.settler import Commits, Settler
from gotasks.task import Outcome, Task

#: Sleeps before a retry stay in the slot up to this long; longer ones give the task back with a delay. Seconds.
LONGEST_SLEEP_IN_SLOT = 1.0

#: Where the broker limits how long a lease can be held, a try is given up after this part of it.
_PART_OF_LONGEST = 0.9


class Runner:
    """Runs the chains of one queue. Safe to use from many threads."""

    def __init__(
        self,
        settings: RunSettings,
        settler: Settler,
        commits: Commits,
        *,
        events: Events,
        loop: LoopThread,
        renew: Callable[[Run], bool],
        forget: Callable[[Run], None],
        stopping: threading.Event,
    ) -> None:
        """
        Args:
            settler: ends runs.
            commits: carries checkpoints.
            loop: runs async handlers.
            renew: extends a lease at once, and says whether it holds.
            forget: told when a run needs its lease no longer.
            stopping: set when no further step may start.
        """
        self._settings = settings
        self._settler = settler
        self._commits = commits
        self._emit = events.emit
        self._loop = loop
        self._renew = renew
        self._forget = forget
        self._stopping = stopping

    def run_chain(self, run: Run) -> None:
        """Take one delivery as far as it goes: to its end, to the fatal queue, or back to where it came from."""
        entered = context.enter(run)
        try:
            self._run_chain(run)
        except BaseException:
            self._forget(run)  # a bug of gotasks, or Ctrl-C: else the lease would be kept for ever
            raise
        finally:
            context.leave(entered)

    def _run_chain(self, run: Run) -> None:
        job = self._admit(run)
        if job is None or (self._settings.ack_first and not self._ack_first(run)):
            return
        while run.known.current_handler_index < len(job.steps):
            step = job.steps[run.known.current_handler_index]
            if not self._may_start(run):
                return
            args = self._try(run, step)
            if args is None or not self._advance(run, job, step, args):
                return
        self._settler.finish(run, run.known, self._settler.state(run))  # nothing was left to run

    def time_out(self, run: Run) -> None:
        """The running try has had its time, and its thread can't be stopped: settle the task without it.

        Called by the heart after `Run.expire_try`.
        """
        task = run.known
        step = self._settings.jobs[task.job_name].steps[task.current_handler_index]
        error = f"still running after {time.monotonic() - run.tried:.1f} s"
        tries = task.tries + 1
        if step.retry is not None and tries <= step.retry.max_times:
            delay = step.retry.sleep(tries) if self._settings.delays else 0.0
            self._count_try(run, step, tries, delay, error)
            self._settler.give_back(run, "timeout", delay)
        else:
            self._settler.bury(run, Outcome.TIMED_OUT, error, step=step, in_doubt=step.retry is None)

    # -- before the first step ------------------------------------------------------------------

    def _admit(self, run: Run) -> Job | None:
        """Read the record and decide whether it may run here. None: it was settled instead."""
        deaths = run.lease.deaths
        try:
            run.task = task = codec.decode(run.lease.envelope.body)
        except codec.Unreadable as error:
            self._emit_crash(run)
            self._settler.bury_unreadable(run, str(error))
            return None
        deaths += task.crashes
        self._emit_crash(run)
        if task.moving is not None:
            self._settler.finish_move(run, task, task.moving)
            return None
        job = self._settings.jobs.get(task.job_name)
        problem = self._misfit(task, job)
        if problem is not None:
            # Whatever this worker doesn't know, another one may have started before it went away.
            self._settler.bury(run, *problem, in_doubt=deaths > 0)
            return None
        assert job is not None
        # Of what is acked before its first step, whatever comes back was never begun.
        if deaths and task.current_handler_index < len(job.steps) and not self._settings.ack_first:
            step = job.steps[task.current_handler_index]
            if step.retry is None:
                why = "its worker went away; this step may have been started, and isn't reentrant"
                self._settler.bury(run, Outcome.IN_DOUBT, why, step=step, in_doubt=True)
                return None
            if deaths >= self._settings.max_crashes:
                self._settler.bury(
                    run, Outcome.CRASHED, f"its worker went away {deaths} times in this step", step=step
                )
                return None
        if run.deferred:
            run.task, run.body = msgspec.structs.replace(task, crashes=deaths), None
            self._settler.give_back(run, "suspect")
            return None
        if task.crashes:
            run.task, run.body = msgspec.structs.replace(task, crashes=0), None
        self._emit(TaskStarted(run.id, run.queue, job.name, _ready_at(task, deaths)))
        return job

    def _ack_first(self, run: Run) -> bool:
        """AckWhen.ACQUIRED: the task leaves the broker before its first step."""
        body = run.lease.envelope.body
        commit = Commit(Kind.ACK, run, run.write(body))
        run.unfenced = True
        answer = self._commits.checkpoint(commit)
        run.deadline = math.inf
        if answer is Answer.HELD:
            return True
        self._forget(run)
        self._settler.emit_lost(commit)
        return False

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
            self._settler.give_back(run, "stop")
            return False
        if run.deadline - time.monotonic() <= self._settings.lease / 3 and not self._renew(run):
            self._settler.give_back(run, "lease")
            return False
        return True

    # -- one step -------------------------------------------------------------------------------

    def _try(self, run: Run, step: Step) -> msgspec.Raw | None:
        """Call the handler until it returns, as often as its `Retry` allows. None: the task was settled."""
        while True:
            run.begin_try(self._limit_at(run, step))
            args: msgspec.Raw | None = None
            failure: BaseException | None = None
            try:
                args = call_step(step, codec.decode_args(run.known.args_map), self._loop, run)
            except BaseException as error:
                failure = error
            counts = run.end_try()
            seconds = time.monotonic() - run.tried
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
        limit = math.inf if longest is None else run.started + longest * _PART_OF_LONGEST
        return limit if step.timeout is None or step.is_async else min(limit, time.monotonic() + step.timeout)

    def _retry(self, run: Run, step: Step, error: BaseException) -> bool:
        """After a failed try: sleep and say True, or settle the task and say False."""
        late = isinstance(error, StepTimeout)
        retry = step.retry
        tries = run.known.tries + 1
        retried = (
            retry is not None
            and (late or isinstance(error, retry.on))
            and not isinstance(error, NEVER_RETRIED)
        )
        if retry is None or not retried or tries > retry.max_times:
            outcome = Outcome.TIMED_OUT if late else Outcome.FAILED
            in_doubt = retry is None and (late or isinstance(error, InvalidResult))
            self._settler.bury(
                run, outcome, sentence(error), step=step, trace=handler_trace(error), in_doubt=in_doubt
            )
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise error  # Ctrl-C while App.drain runs a handler
            return False
        delay = retry.sleep(tries)
        self._count_try(run, step, tries, delay, sentence(error))
        if delay > LONGEST_SLEEP_IN_SLOT and self._settings.delays:
            self._settler.give_back(run, "retry", delay)
            return False
        self._stopping.wait(delay)
        return self._may_start(run)

    def _count_try(self, run: Run, step: Step, tries: int, delay: float, error: str) -> None:
        run.task = msgspec.structs.replace(run.known, tries=tries)
        run.body = None
        self._emit(StepRetried(run.id, run.queue, run.job, step.name, tries, delay, error))

    def _advance(self, run: Run, job: Job, step: Step, args: msgspec.Raw) -> bool:
        """Make the step's result durable. True: the chain goes on under this lease."""
        before = run.known
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
            self._settler.bury_result(
                run, step, f"its result makes a task of {len(body)} bytes: {self._settings.max_state} fit"
            )
            return False
        if done == len(job.steps):
            self._settler.finish(run, task, body)
            return False
        if self._stopping.is_set():
            run.task, run.body = task, body
            self._settler.give_back(run, "stop")  # one write carries the new state and gives it back
            return False
        commit = Commit(Kind.CHECKPOINT, run, run.write(body))
        hands_off = self._settings.hands_off
        if hands_off and not run.settle():
            return False
        answer = self._commits.checkpoint(commit)
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
                self._settler.emit_lost(commit)
        else:
            self._settler.bury_result(run, step, "the broker refused its result")
        return False

    def _emit_crash(self, run: Run) -> None:
        if run.lease.deaths:
            self._emit(TaskCrashed(run.id, run.queue, run.job, run.lease.deaths))


def _ready_at(task: Task, deaths: int) -> str | None:
    """When a new task became ready; None for one that was begun before."""
    if deaths or task.tries or task.current_handler_index:
        return None
    return task.not_before or task.updated_at


def _chain(steps: tuple[str, ...]) -> str:
    return " → ".join(steps)
