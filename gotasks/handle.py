"""TaskHandle: what `enqueue` returns, to ask a task how it is and to wait for its end."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gotasks import codec
from gotasks.args import ArgsMap
from gotasks.broker import Capability, Record, State
from gotasks.errors import TaskCancelled, TaskFailed, TaskNotFound, WaitTimeout
from gotasks.task import Failure, Status, Task

if TYPE_CHECKING:
    from gotasks.app import App

#: `wait` asks the broker this often: from the first to the second, in seconds.
_POLL = (0.005, 0.25)


class TaskHandle:
    """One task, by its id. Cheap; holds no connection. Safe from any thread.

    Everything but `id` and `cancel` needs a broker with RECORDS, and raises Unsupported on others; TaskNotFound where
    the broker has no record (any more, or not before the transaction of its enqueue is committed); BrokerUnavailable
    where it can't be reached.
    """

    __slots__ = ("_app", "id")

    def __init__(self, app: App, task_id: str) -> None:
        self._app = app
        self.id = task_id

    def __repr__(self) -> str:
        return f"<TaskHandle {self.id}>"

    def status(self) -> Status:
        """Where the task is now."""
        return self._status(self._record())

    async def astatus(self) -> Status:
        """`status`, for async code."""
        return await asyncio.to_thread(self.status)

    @property
    def step(self) -> str | None:
        """The name of the next step (of the failed one, in the fatal queue); None when all are done."""
        task = self.task()
        if task.steps is not None:
            steps = task.steps
        elif task.job_name in self._app.jobs:
            steps = self._app.jobs[task.job_name].step_names
        else:
            return None
        return steps[task.current_handler_index] if 0 <= task.current_handler_index < len(steps) else None

    @property
    def args(self) -> ArgsMap:
        """The args map that the next step will get; of a task that is done, the final one."""
        return codec.decode_args(self.task().args_map)

    def task(self) -> Task:
        """The whole record. Raises TaskNotFound also where it can't be read."""
        return self.snapshot()[1]

    def snapshot(self) -> tuple[Status, Task]:
        """Status and record of one moment."""
        record = self._record()
        return self._status(record), self._decoded(record)

    def cancel(self) -> bool:
        """End the task, wherever it is; whether this call did. False: it had ended, or isn't known (any more).

        No step of it is started any more. One that runs goes on unless it's async or asks `context.current().revoked`;
        the worker learns of it within a third of the lease, and discards what it gives. Needs CANCEL (no RECORDS).
        """
        return self.id in self._app.dispatch.cancel([self.id], keep_for=self._app.keep_for)

    async def acancel(self) -> bool:
        """`cancel`, for async code."""
        return await asyncio.to_thread(self.cancel)

    def wait(self, timeout: float | None = None) -> ArgsMap:
        """Wait for the task's end and return its final args map. `timeout` in seconds; None waits for ever.

        Raises TaskFailed when it lies in the fatal queue, TaskCancelled, or WaitTimeout (a TimeoutError).
        """
        pauses = _pauses(timeout)
        while isinstance(found := self._look(), Status):
            time.sleep(self._next(pauses, found, timeout))
        return found

    async def await_result(self, timeout: float | None = None) -> ArgsMap:
        """`wait`, for async code. Cancelling it stops the waiting, not the task."""
        pauses = _pauses(timeout)
        while isinstance(found := await asyncio.to_thread(self._look), Status):  # noqa: ASYNC110 - it is polled
            await asyncio.sleep(self._next(pauses, found, timeout))
        return found

    def _look(self) -> ArgsMap | Status:
        """The final args map of a task that is done, or the status of one that hasn't ended. Raises as `wait`."""
        record = self._record()
        status = self._status(record)
        if status is Status.DONE:
            return codec.decode_args(self._decoded(record).args_map)
        if status is Status.CANCELLED:
            raise TaskCancelled(f"task {self.id} was cancelled")
        if status is Status.FATAL:
            raise self._failure(record)
        return status

    def _next(self, pauses: Iterator[float], status: Status, timeout: float | None) -> float:
        """The pause before the next look. Raises WaitTimeout when the time is up."""
        pause = next(pauses, None)
        if pause is None:
            raise WaitTimeout(f"task {self.id} is still {status.value} after {timeout:g} s")
        return pause

    def _record(self) -> Record:
        record = self._app.dispatch.get([self.id]).get(self.id)
        if record is None:
            transactional = Capability.TRANSACTIONAL in self._app.capabilities
            raise TaskNotFound(
                f"the broker has no record of task {self.id}: unknown, "
                f"{'its transaction is not committed, ' * transactional}its task_ttl is over, or its queue acks before "
                "the first step (AckWhen.ACQUIRED), which keeps none"
            )
        return record

    def _status(self, record: Record) -> Status:
        if record.state is State.DONE:
            return Status.DONE
        if record.state is State.CANCELLED:
            return Status.CANCELLED
        if record.queue == self._app.fatal_queue:
            return Status.FATAL
        return {
            State.LEASED: Status.RUNNING,
            State.READY: Status.READY,
            State.SCHEDULED: Status.SCHEDULED,
        }[record.state]

    def _decoded(self, record: Record) -> Task:
        try:
            return codec.decode(record.body)
        except codec.Unreadable as error:
            raise TaskNotFound(f"the record of task {self.id} can't be read: {error}") from None

    def _failure(self, record: Record) -> TaskFailed:
        try:
            log = codec.decode(record.body).result_log
        except codec.Unreadable as error:
            return TaskFailed(self.id, None, str(error))
        if isinstance(log, Failure):
            return TaskFailed(self.id, log.step or None, log.error, log.traceback)
        return TaskFailed(self.id, None, log or "in the fatal queue")


def _pauses(timeout: float | None) -> Iterator[float]:
    """Longer and longer pauses, in seconds, until `timeout` seconds are over."""
    end = math.inf if timeout is None else time.monotonic() + timeout
    pause = _POLL[0]
    while (left := end - time.monotonic()) > 0:
        yield min(pause, left)
        pause = min(pause * 1.5, _POLL[1])
