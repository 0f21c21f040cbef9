"""Faulty: an engine that starts a step twice which isn't reentrant, or that knows nothing of doubt."""

from __future__ import annotations

from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Any

import msgspec

from gotasks.conformance.faulty import engine_fault, trip
from gotasks.conformance.faulty.crashes import patched
from gotasks.fatal import FatalQueue, FatalTask
from gotasks.job import Job, Step
from gotasks.run import Answer, Commit, Run
from gotasks.runner import Runner
from gotasks.settler import Settler
from gotasks.task import Outcome, Task
from gotasks.worker.commits import GroupedCommits


@engine_fault("NRE-01", "NRE-02", name="RerunNonReentrant")
def _rerun_non_reentrant() -> AbstractContextManager[None]:
    """A task that comes back after a death is run on, whatever its next step is."""
    admit = Runner._admit  # noqa: SLF001

    def wrong(self: Runner, run: Run) -> Job | None:
        if run.lease.deaths:
            trip()
            run.lease = msgspec.structs.replace(run.lease, deaths=0)
        return admit(self, run)

    return patched(Runner, "_admit", wrong)


@engine_fault("NRE-01", name="SkipsDoubt")
def _skips_doubt() -> AbstractContextManager[None]:
    """A step that may have been started is taken for done."""
    admit = Runner._admit  # noqa: SLF001

    def wrong(self: Runner, run: Run) -> Job | None:
        deaths = run.lease.deaths
        run.lease = msgspec.structs.replace(run.lease, deaths=0)
        job = admit(self, run)
        if deaths and job is not None and job.steps[run.known.current_handler_index].retry is None:
            trip()
            run.task = msgspec.structs.replace(
                run.known, current_handler_index=run.known.current_handler_index + 1
            )
            run.body = None
        return job

    return patched(Runner, "_admit", wrong)


@engine_fault("NRE-03", name="IntentUnchecked")
def _intent_unchecked() -> AbstractContextManager[None]:
    """The next step is started while its checkpoint is still on its way."""

    def wrong(self: GroupedCommits, commit: Commit) -> Answer:
        trip()
        commit.answers = SimpleQueue()
        self._committer.put(commit)
        return Answer.HELD

    return patched(GroupedCommits, "checkpoint", wrong)


@engine_fault("NRE-04", name="IntentNeverCleared")
def _intent_never_cleared() -> AbstractContextManager[None]:
    """Behind a step that isn't reentrant a death leaves that one in doubt, checkpointed or not."""
    admit = Runner._admit  # noqa: SLF001

    def wrong(self: Runner, run: Run) -> Job | None:
        job = admit(self, run)
        index = run.known.current_handler_index
        if job is not None and run.lease.deaths and index and job.steps[index - 1].retry is None:
            trip()
            self._settler.bury(run, Outcome.IN_DOUBT, "who knows", step=job.steps[index - 1], in_doubt=True)
            return None
        return job

    return patched(Runner, "_admit", wrong)


@engine_fault("NRE-05", name="SilentRerun")
def _silent_rerun() -> AbstractContextManager[None]:
    """A task in doubt is resumed as any other."""
    retry = FatalQueue.retry

    def wrong(self: FatalQueue, task_id: str, **options: Any) -> str:
        trip()
        return retry(self, task_id, **{**options, "force": True})

    return patched(FatalQueue, "retry", wrong)


@engine_fault("NRE-05", name="RefusedAndDone")
def _refused_and_done() -> AbstractContextManager[None]:
    """A retry that is refused has taken place."""
    retry = FatalQueue.retry

    def wrong(self: FatalQueue, task_id: str, **options: Any) -> str:
        try:
            return retry(self, task_id, **options)
        except Exception:
            trip()
            retry(self, task_id, force=True)
            raise

    return patched(FatalQueue, "retry", wrong)


@engine_fault("NRE-05", name="ForceStartsAnew")
def _force_starts_anew() -> AbstractContextManager[None]:
    """What is resumed by force begins with its first step."""
    place = FatalQueue._place  # noqa: SLF001

    def wrong(
        self: FatalQueue, found: FatalTask, task: Task, from_step: str | None
    ) -> tuple[tuple[str, ...] | None, int]:
        trip()
        return place(self, found, task, from_step)[0], 0

    return patched(FatalQueue, "_place", wrong)


@engine_fault("NRE-06", name="RetryNonReentrant")
def _retry_non_reentrant() -> AbstractContextManager[None]:
    """A handler that raises is called once more, whatever it is."""
    retry = Runner._retry  # noqa: SLF001

    def wrong(self: Runner, run: Run, step: Step, error: BaseException) -> bool:
        if step.retry is None and not run.known.tries:
            trip()
            self._count_try(run, step, 1, 0.0, "once more")
            return True
        return retry(self, run, step, error)

    return patched(Runner, "_retry", wrong)


@engine_fault("NRE-06", name="FailedIsInDoubt")
def _failed_is_in_doubt() -> AbstractContextManager[None]:
    """A step that raised is said to be in doubt."""
    bury = Settler.bury

    def wrong(self: Settler, run: Run, outcome: Outcome, error: str, **options: Any) -> None:
        if outcome is Outcome.FAILED:
            trip()
            outcome = Outcome.IN_DOUBT
        bury(self, run, outcome, error, **options)

    return patched(Settler, "bury", wrong)
