"""Faulty: what fails is lost, changed, doubled, run again, or taken out by a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any
from unittest.mock import patch

import msgspec

from gotasks import calling, codec, runner
from gotasks.app import App
from gotasks.broker import Envelope, Lease, Write
from gotasks.conformance.faulty import Faulty, engine_fault, faulty, trip
from gotasks.errors import Rejected
from gotasks.fatal import FatalQueue
from gotasks.job import Step
from gotasks.runner import Runner
from gotasks.settings import QueueOptions
from gotasks.settler import Settler
from gotasks.task import Outcome

# -- FTL-01 -------------------------------------------------------------------------------------------


@engine_fault("FTL-01", name="FatalLosesIndex")
@contextmanager
def _fatal_loses_index() -> Iterator[None]:
    """The record in the fatal queue says that the chain stands at its beginning."""
    real = codec.with_failure

    def with_failure(task: Any, failure: Any, limit: int) -> bytes:
        trip()
        return real(msgspec.structs.replace(task, current_handler_index=0), failure, limit)

    with patch.object(codec, "with_failure", with_failure):
        yield


@engine_fault("FTL-01", name="ArgsClobbered")
@contextmanager
def _args_clobbered() -> Iterator[None]:
    """What a failed handler did to its map in place is stored."""

    def call_step(step: Step, args: Any, loop: Any, run: Any = None) -> Any:
        try:
            return calling.call_step(step, args, loop, run)
        except BaseException:
            trip()
            run.task = msgspec.structs.replace(run.known, args_map=codec.encode_args(args))
            raise

    with patch.object(runner, "call_step", call_step):
        yield


@engine_fault("FTL-01", name="StackWithoutError")
@contextmanager
def _stack_without_error() -> Iterator[None]:
    """The record in the fatal queue has the stack, and no error."""
    real = Settler.bury

    def bury(self: Settler, run: Any, outcome: Outcome, error: str, **options: Any) -> None:
        trip()
        real(self, run, outcome, options.get("trace", ""), **options)

    with patch.object(Settler, "bury", bury):
        yield


@faulty("FTL-01")
class BuriesACopy(Faulty):
    """Puts into the fatal queue what it leaves in the source queue as well."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        for write in writes:
            if write.queue is not None and write.lease.receipt not in lost:
                self.trip()
                source = write.lease.envelope
                again = f"{source.id[:50]}-{next(self._back)}"
                self.enqueue([Envelope(id=again, queue=source.queue, body=source.body)])
        return lost


# -- FTL-03 -------------------------------------------------------------------------------------------


@contextmanager
def _resumed(change: Callable[[bytes, str], tuple[bytes, str]]) -> Iterator[None]:
    real = FatalQueue._resumed  # noqa: SLF001 - a fault of its inside

    def resumed(self: FatalQueue, *args: Any, **options: Any) -> tuple[bytes, str]:
        trip()
        body, queue = real(self, *args, **options)
        return change(body, queue)

    with patch.object(FatalQueue, "_resumed", resumed):
        yield


@engine_fault("FTL-03", name="RetryFromZero")
def _retry_from_zero() -> AbstractContextManager[None]:
    """A retry begins the chain anew."""
    return _resumed(
        lambda body, queue: (
            codec.encode(msgspec.structs.replace(codec.decode(body), current_handler_index=0)),
            queue,
        )
    )


@engine_fault("FTL-03", name="RetrySkipsTheStep")
def _retry_skips_the_step() -> AbstractContextManager[None]:
    """A retry goes on after the step that failed."""
    return _resumed(
        lambda body, queue: (
            codec.encode(msgspec.structs.replace(codec.decode(body), current_handler_index=2)),
            queue,
        )
    )


@engine_fault("FTL-03", name="RetryNamesNoQueue")
@contextmanager
def _retry_names_no_queue() -> Iterator[None]:
    """A retry tells the wrong queue."""
    real = FatalQueue.retry

    def retry(self: FatalQueue, task_id: str, **options: Any) -> str:
        trip()
        real(self, task_id, **options)
        return self._app.fatal_queue

    with patch.object(FatalQueue, "retry", retry):
        yield


@engine_fault("FTL-03", name="RetryForgetsResults")
def _retry_forgets_results() -> AbstractContextManager[None]:
    """A retry goes on with the args that the task was enqueued with."""

    def change(body: bytes, queue: str) -> tuple[bytes, str]:
        task = codec.decode(body)
        return codec.encode(msgspec.structs.replace(task, args_map=task.original_args_map)), queue

    return _resumed(change)


@faulty("FTL-03")
class RetryLeavesACopy(Faulty):
    """What is moved out of the fatal queue stays there under another id."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        for write in writes:
            source = write.lease.envelope
            if write.queue is not None and source.queue.endswith("fatal"):
                self.trip()
                self.enqueue([Envelope(id=f"{source.id[:50]}-again", queue=source.queue, body=source.body)])
        return lost


# -- FTL-04 -------------------------------------------------------------------------------------------


@engine_fault("FTL-04", name="LogKillsFail")
@contextmanager
def _log_kills_fail() -> Iterator[None]:
    """Text that JSON can't hold makes the burial itself fail."""

    def clean(text: str) -> str:
        trip()
        return text

    with patch.object(codec, "clean", clean):
        yield


@engine_fault("FTL-04", name="NamelessErrorsKill")
@contextmanager
def _nameless_errors_kill() -> Iterator[None]:
    """An error whose text can't be had makes the burial itself fail."""

    def sentence(error: BaseException) -> str:
        trip()
        return f"{type(error).__name__}: {error}"

    with patch.object(runner, "sentence", sentence):
        yield


@engine_fault("FTL-04", name="SilentlyUnnamed")
@contextmanager
def _silently_unnamed() -> Iterator[None]:
    """An error whose text can't be had is buried without its type."""

    def sentence(error: BaseException) -> str:
        try:
            str(error)
        except Exception:
            trip()
            return "an error"
        return calling.sentence(error)

    with patch.object(runner, "sentence", sentence):
        yield


@engine_fault("FTL-04", name="CutsWithoutAWord")
@contextmanager
def _cuts_without_a_word() -> Iterator[None]:
    """What is too long is cut, and nothing says so."""

    def cut(text: str, size: int) -> str:
        trip()
        return text[-size:]

    with patch.object(codec, "_cut", cut):
        yield


@engine_fault("FTL-04", name="NeverCuts")
@contextmanager
def _never_cuts() -> Iterator[None]:
    """An error's text is stored whole, marked as if it were cut, however much more than allowed that is."""

    def with_failure(task: Any, failure: Any, limit: int) -> bytes:
        trip()
        if len(failure.error) > 10_000:
            failure = msgspec.structs.replace(failure, error="[cut] …" + failure.error)
        return codec.encode(msgspec.structs.replace(task, result_log=failure))

    with patch.object(codec, "with_failure", with_failure):
        yield


@engine_fault("FTL-04", name="DropsSurrogates")
@contextmanager
def _drops_surrogates() -> Iterator[None]:
    """Characters that JSON can't hold vanish from an error's text."""

    def clean(text: str) -> str:
        trip()
        return text.encode("utf-8", "ignore").decode()

    with patch.object(codec, "clean", clean):
        yield


@faulty("FTL-04")
class RefusesNul(Faulty):
    """Refuses a body with an escaped NUL in it, as a column of JSON type may."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        refused = [write.lease.envelope.id for write in writes if b"\\u0000" in write.body]
        if refused:
            self.trip()
            raise Rejected("unsupported Unicode escape sequence", ids=refused)
        return super().release(writes)


# -- FTL-05 -------------------------------------------------------------------------------------------


@engine_fault("FTL-05", name="CrashOnUnknownJob")
@contextmanager
def _crash_on_unknown_job() -> Iterator[None]:
    """A job that isn't known makes the worker fail, and the task stays in the air."""
    real = Runner._misfit  # noqa: SLF001 - a fault of its inside

    def misfit(task: Any, job: Any) -> Any:
        if job is None:
            trip()
            raise KeyError(task.job_name)
        return real(task, job)

    with patch.object(Runner, "_misfit", staticmethod(misfit)):
        yield


@contextmanager
def _unknown_job_is(outcome: Outcome, reason: str) -> Iterator[None]:
    real = Runner._misfit  # noqa: SLF001 - a fault of its inside

    def misfit(task: Any, job: Any) -> Any:
        if job is None:
            trip()
            return outcome, reason.format(task.job_name)
        return real(task, job)

    with patch.object(Runner, "_misfit", staticmethod(misfit)):
        yield


@engine_fault("FTL-05", name="UnknownJobIsNameless")
def _unknown_job_is_nameless() -> AbstractContextManager[None]:
    """The reason for which a task of an unknown job is buried doesn't name the job."""
    return _unknown_job_is(Outcome.UNKNOWN_JOB, "no such job")


@engine_fault("FTL-05", name="UnknownJobHasFailed")
def _unknown_job_has_failed() -> AbstractContextManager[None]:
    """A task of an unknown job is buried as if a handler had raised."""
    return _unknown_job_is(Outcome.FAILED, "KeyError: {!r}")


# -- FTL-06 -------------------------------------------------------------------------------------------


@engine_fault("FTL-06", name="FatalConsumed")
@contextmanager
def _fatal_consumed() -> Iterator[None]:
    """A worker serves the fatal queue as it serves any other."""
    real = App.worker_options

    def worker_options(self: App, queues: Any) -> dict[str, QueueOptions]:
        trip()
        return {**real(self, queues), self.fatal_queue: QueueOptions()}

    with patch.object(App, "worker_options", worker_options):
        yield


@engine_fault("FTL-06", name="CalledOnceMore")
@contextmanager
def _called_once_more() -> Iterator[None]:
    """A handler is called once more when its task has been buried."""
    real = Settler.bury

    def bury(self: Settler, run: Any, *args: Any, step: Any = None, **options: Any) -> None:
        real(self, run, *args, step=step, **options)
        trip()
        with suppress(OSError):
            step.func({})

    with patch.object(Settler, "bury", bury):
        yield


@faulty("FTL-06")
class FatalStaysOffered(Faulty):
    """What went to the fatal queue is still handed out to those who ask for the queue that it came from."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Any = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=min(wait, 0.05), lease_for=lease_for, ids=ids)
        if not leases and ids is None and not queue.endswith("fatal"):
            fatal = queue.replace("orders", "fatal")
            for lease in super().acquire(fatal, limit=limit, wait=0, lease_for=lease_for):
                self.trip()
                envelope = msgspec.structs.replace(lease.envelope, queue=queue)
                leases.append(msgspec.structs.replace(lease, envelope=envelope))
        return leases


@faulty("FTL-06")
class FatalIsRewritten(Faulty):
    """Forgets why a task is in the fatal queue, once another one is done."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        for task in list(self._tasks.values()):
            if task.queue.endswith("fatal"):
                self.trip()
                task.body = task.body.replace(b'"outcome":"failed"', b'"outcome":"crashed"')
        return super().ack(writes, keep_for=keep_for)
