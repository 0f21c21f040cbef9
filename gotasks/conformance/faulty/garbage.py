"""Faulty: garbage that stops a worker, is thrown away or bent, or goes round in circles."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest.mock import patch

import msgspec

from gotasks import codec, logs
from gotasks.broker import Envelope, Lease, Write
from gotasks.conformance.faulty import Faulty, engine_fault, faulty, trip
from gotasks.events import TaskCrashed, TaskReleased
from gotasks.job import Job
from gotasks.run import Run
from gotasks.runner import Runner
from gotasks.settler import Settler
from gotasks.task import Failure, Outcome, Task


class _Foreign(Faulty):
    """A broker that treats what it didn't store itself in a way of its own."""

    @staticmethod
    def is_foreign(lease: Lease) -> bool:
        return lease.envelope.id.startswith("foreign-")

    def meet(self, leases: list[Lease]) -> list[Lease]:
        return leases

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        return leases if queue.endswith("fatal") else self.meet(leases)


@faulty("BAD-01")
class RaisesOnForeignBytes(_Foreign):
    """Raises when it meets an element that it doesn't understand, and meets it again and again."""

    def meet(self, leases: list[Lease]) -> list[Lease]:
        if any(map(self.is_foreign, leases)):
            self.trip()
            self.release([self._as_it_was(lease) for lease in leases])
            raise ValueError("invalid literal for an id")
        return leases

    @staticmethod
    def _as_it_was(lease: Lease) -> Write:
        return Write(lease=lease, body=lease.envelope.body, seq=1)


@faulty("BAD-01")
class DropsForeignBytes(_Foreign):
    """Throws away what it doesn't understand."""

    def meet(self, leases: list[Lease]) -> list[Lease]:
        for lease in filter(self.is_foreign, leases):
            self.trip()
            self.ack([Write(lease=lease, body=b"", seq=1)], keep_for=0)
        return [lease for lease in leases if not self.is_foreign(lease)]


@faulty("BAD-01")
class ReadsForeignBytesAsText(_Foreign):
    """Hands out foreign bytes as text, with what isn't UTF-8 replaced."""

    def meet(self, leases: list[Lease]) -> list[Lease]:
        return [self._as_text(lease) if self.is_foreign(lease) else lease for lease in leases]

    def _as_text(self, lease: Lease) -> Lease:
        self.trip()
        text = lease.envelope.body.decode("utf-8", "replace")
        return msgspec.structs.replace(
            lease, envelope=msgspec.structs.replace(lease.envelope, body=text.encode())
        )


@engine_fault("BAD-01", "BAD-02", name="UnreadableHasFailed")
@contextmanager
def _unreadable_has_failed() -> Iterator[None]:
    """What can't be read is buried as if a handler had raised."""
    real = codec.wrap

    def wrap(task_id: str, queue: str, body: bytes, failure: Failure, limit: int) -> bytes:
        trip()
        return real(task_id, queue, body, msgspec.structs.replace(failure, outcome=Outcome.FAILED), limit)

    with patch.object(codec, "wrap", wrap):
        yield


# -- BAD-02 -------------------------------------------------------------------------------------------


@engine_fault("BAD-02", name="CrashOnGarbage")
@contextmanager
def _crash_on_garbage() -> Iterator[None]:
    """Looks into a body before it is known to be a record: one that isn't ends the fetcher."""
    real = codec.crashes

    def crashes(body: bytes) -> int:
        if not body.startswith(b"{"):
            trip()
            raise ValueError("Expecting value: line 1 column 1 (char 0)")
        return real(body)

    with patch.object(codec, "crashes", crashes):
        yield


@engine_fault("BAD-02", name="DropGarbage")
@contextmanager
def _drop_garbage() -> Iterator[None]:
    """Acks what can't be read."""

    def bury_unreadable(self: Settler, run: Run, error: str) -> None:
        trip()
        run.task = codec.decode(codec.wrap(run.id, run.queue, b"", Failure(Outcome.FAILED, "", ""), 2**20))
        self.finish(run, run.known, b"")

    with patch.object(Settler, "bury_unreadable", bury_unreadable):
        yield


@engine_fault("BAD-02", name="GarbageMangled")
@contextmanager
def _garbage_mangled() -> Iterator[None]:
    """Keeps of what can't be read only what is text."""
    real = codec.wrap

    def wrap(task_id: str, queue: str, body: bytes, failure: Failure, limit: int) -> bytes:
        trip()
        return real(task_id, queue, body.decode("utf-8", "ignore").encode(), failure, limit)

    with patch.object(codec, "wrap", wrap):
        yield


@engine_fault("BAD-02", name="GarbageCut")
@contextmanager
def _garbage_cut() -> Iterator[None]:
    """Keeps of what is too large to be wrapped only as much as fits."""
    real = codec.wrap

    def wrap(task_id: str, queue: str, body: bytes, failure: Failure, limit: int) -> bytes:
        if len(body) > limit // 2:
            trip()
            body = body[: limit // 2]
        return real(task_id, queue, body, failure, limit)

    with patch.object(codec, "wrap", wrap):
        yield


@engine_fault("BAD-02", name="UnreadableWithoutReason")
@contextmanager
def _unreadable_without_reason() -> Iterator[None]:
    """Buries what can't be read, and doesn't say why that is so."""
    real = Settler.bury_unreadable

    def bury_unreadable(self: Settler, run: Run, error: str) -> None:
        trip()
        real(self, run, "")

    with patch.object(Settler, "bury_unreadable", bury_unreadable):
        yield


@engine_fault("BAD-02", name="NewerIsRun")
@contextmanager
def _newer_is_run() -> Iterator[None]:
    """Runs a record of a version that it doesn't know."""
    trip()
    with patch.object(codec, "decode", _decode_any):
        yield


def _decode_any(body: bytes) -> Task:
    try:
        task = msgspec.json.decode(body, type=Task)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise codec.Unreadable(f"not a task record: {error}") from None
    if bytes(task.args_map)[:1] != b"{":
        raise codec.Unreadable("not a task record: its args map isn't an object")
    return task


# -- BAD-03 -------------------------------------------------------------------------------------------


@contextmanager
def _misfit_is(judge: Callable[[Task, tuple[Outcome, str]], tuple[Outcome, str] | None]) -> Iterator[None]:
    real = Runner._misfit  # noqa: SLF001 - a fault of its inside

    def misfit(task: Task, job: Job | None) -> tuple[Outcome, str] | None:
        problem = real(task, job)
        if problem is None:
            return None
        trip()
        return judge(task, problem)

    with patch.object(Runner, "_misfit", staticmethod(misfit)):
        yield


@engine_fault("BAD-03", name="IndexWraps")
def _index_wraps() -> AbstractContextManager[None]:
    """A negative index counts from the end of the chain."""
    return _misfit_is(lambda task, problem: None if task.current_handler_index < 0 else problem)


@engine_fault("BAD-03", name="BeyondTheEndIsDone")
def _beyond_the_end_is_done() -> AbstractContextManager[None]:
    """An index beyond the end of the chain counts as its end."""
    return _misfit_is(lambda task, problem: None if task.current_handler_index > 0 else problem)


@engine_fault("BAD-03", name="BadIndexUnnamed")
def _bad_index_unnamed() -> AbstractContextManager[None]:
    """The reason doesn't name the index that doesn't fit."""
    return _misfit_is(lambda task, problem: (problem[0], "the index doesn't fit"))


@engine_fault("BAD-03", name="BadIndexStartsAnew")
@contextmanager
def _bad_index_starts_anew() -> Iterator[None]:
    """Calls the first step of a chain whose index doesn't fit, before it gives the task up."""
    real = Runner._misfit  # noqa: SLF001 - a fault of its inside

    def misfit(task: Task, job: Job | None) -> tuple[Outcome, str] | None:
        problem = real(task, job)
        if problem is not None and job is not None:
            trip()
            job.steps[0].func({})
        return problem

    with patch.object(Runner, "_misfit", staticmethod(misfit)):
        yield


# -- BAD-04 -------------------------------------------------------------------------------------------


@engine_fault("BAD-04", name="GarbageSpin")
@contextmanager
def _garbage_spin() -> Iterator[None]:
    """Puts back what it can't read, for another worker to try, and gives up only after a while."""
    real = Settler.bury_unreadable
    met: dict[str, int] = {}

    def bury_unreadable(self: Settler, run: Run, error: str) -> None:
        met[run.id] = met.get(run.id, 0) + 1
        if met[run.id] > 3:
            real(self, run, error)
            return
        trip()
        self._release(run, run.lease.envelope.body, TaskReleased(run.id, run.queue, "", "again", 0.0))

    with patch.object(Settler, "bury_unreadable", bury_unreadable):
        yield


@contextmanager
def _unreadable_says(say: Callable[[Settler, Run, str], str]) -> Iterator[None]:
    """What can't be read is buried with the error that `say` makes of the real one, and the log cuts no error."""
    real = Settler.bury_unreadable

    def bury_unreadable(self: Settler, run: Run, error: str) -> None:
        trip()
        real(self, run, say(self, run, error))

    with patch.object(Settler, "bury_unreadable", bury_unreadable), patch.object(logs, "_line", str):
        yield


@engine_fault("BAD-04", name="GarbageIsQuoted")
def _garbage_is_quoted() -> AbstractContextManager[None]:
    """Writes into the log what it can't read, as a whole."""
    return _unreadable_says(lambda settler, run, error: f"{error}: {run.lease.envelope.body!r}")


@engine_fault("BAD-04", name="GarbageIsReportedTwice")
def _garbage_is_reported_twice() -> AbstractContextManager[None]:
    """Says of each body that it can't read that its worker went away, too."""

    def say(settler: Settler, run: Run, error: str) -> str:
        settler._emit(TaskCrashed(run.id, run.queue, "", 1))  # noqa: SLF001 - a fault of its inside
        return error

    return _unreadable_says(say)


# -- BAD-05 -------------------------------------------------------------------------------------------


class _Dangling(Faulty):
    """Remembers whose record was taken away."""

    gone: Envelope | None = None

    def evict(self, task_id: str) -> None:
        self.gone = Envelope(id=task_id, queue=self._tasks[task_id].queue, body=b"")
        super().evict(task_id)

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if self.gone is not None and queue == self.gone.queue:
            leases = self.meet(self.gone, time.monotonic() + lease_for)
            if leases:
                self.trip()
                return leases
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)

    def meet(self, gone: Envelope, deadline: float) -> list[Lease]:
        return []


@faulty("BAD-05")
class DanglingLoop(_Dangling):
    """Hands out a place whose record is gone at every second call, since no write of it arrives anywhere."""

    calls = 0

    def meet(self, gone: Envelope, deadline: float) -> list[Lease]:
        self.calls += 1
        receipt = secrets.token_hex(8)
        return [Lease(envelope=gone, receipt=receipt, deaths=0, deadline=deadline)] if self.calls % 2 else []


@faulty("BAD-05")
class DanglingRaises(_Dangling):
    """Raises at a place whose record is gone, and comes no further."""

    def meet(self, gone: Envelope, deadline: float) -> list[Lease]:
        self.trip()
        raise KeyError(gone.id)


@faulty("BAD-05")
class RunsFromItsCache(Faulty):
    """Hands out a task whose record is gone from a cache of its own."""

    def evict(self, task_id: str) -> None:
        self.trip()
