"""FatalQueue: where failed tasks wait for a person, who looks at them, mends their args, resumes or drops them."""

from __future__ import annotations

import base64
import builtins
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from gotasks import codec
from gotasks.broker import Capability, Lease, State, Write
from gotasks.errors import BrokerError, ConfigurationError, InDoubt, InvalidName, TaskNotFound
from gotasks.task import Failure, Outcome, Task, check_queue_name, is_task_id

if TYPE_CHECKING:
    from gotasks.app import App

#: How long a person's command holds a task, in seconds.
_HOLD = 30.0

#: How many tasks are looked through on a broker that can't acquire by id.
_LOOK_THROUGH = 1000


class _TakenAway(BrokerError):
    """Somebody else took the task between the two writes of a move: there is no lease to give back."""


@dataclass(frozen=True)
class FatalTask:
    """A task in the fatal queue. `task` is None where the body isn't a record at all."""

    id: str
    task: Task | None
    body: bytes

    @property
    def failure(self) -> Failure:
        """Why it is here."""
        log = self.task.result_log if self.task is not None else None
        if isinstance(log, Failure):
            return log
        stamp = self.task.updated_at if self.task is not None else ""
        return Failure(
            outcome=Outcome.UNREADABLE if self.task is None else Outcome.FAILED, error=log or "", at=stamp
        )


class FatalQueue:
    """Operations on an app's fatal queue: `app.fatal`. Safe from any thread.

    Each raises BrokerUnavailable where the server can't be reached. Without BROWSE the first 1000 tasks are
    acquired, looked at and released in the order in which they came.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def list(self, limit: int = 100, after: str | None = None) -> list[FatalTask]:
        """Up to `limit` tasks, the oldest first, following the id `after`."""
        dispatch, queue = self._app.dispatch, self._app.fatal_queue
        if Capability.BROWSE in dispatch.capabilities:
            records = dispatch.browse(queue, state=State.READY, limit=limit, after=after)
            return [_read(record.id, record.body) for record in records]
        with self._all() as leases:
            found = [_read(lease.envelope.id, lease.envelope.body) for lease in leases]
        ids = [each.id for each in found]
        if after is not None:  # nothing follows one that is gone
            found = found[ids.index(after) + 1 :] if after in ids else []
        return found[: max(limit, 0)]

    def show(self, task_id: str) -> FatalTask:
        """One task. Raises TaskNotFound if it isn't in the fatal queue."""
        dispatch = self._app.dispatch
        if Capability.RECORDS in dispatch.capabilities:
            record = dispatch.get([task_id]).get(task_id)
            if record is not None and record.queue == self._app.fatal_queue:
                return _read(record.id, record.body)
        else:
            with self._all() as leases:
                for lease in leases:
                    if lease.envelope.id == task_id:
                        return _read(task_id, lease.envelope.body)
        raise self._not_found(task_id)

    def retry(
        self,
        task_id: str,
        *,
        from_step: str | None = None,
        changes: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> str:
        """Put a task back into the queue that it came from; it goes on at the step that failed.

        Args:
            from_step: go on at this step instead, an earlier or a later one.
            changes: keys of the args map to set before.
            force: needed where a step that isn't reentrant may be started a second time: for a task in doubt,
                one whose move was interrupted, and for going back to a step that was completed.

        Returns the queue's name. Raises TaskNotFound, InDoubt, ConfigurationError, InvalidArgs; the task then
        stays as it is.
        """
        if Capability.BROWSE in self._app.dispatch.capabilities:
            # Refused before it is held: what is held and put back comes to the front.
            self._resumed(self.show(task_id), from_step, changes or {}, force=force)
        with self._held(task_id) as lease:
            found = _read(task_id, lease.envelope.body)
            body, queue = self._resumed(found, from_step, changes or {}, force=force)
            self._move(lease, body, queue)
        return queue

    def drop(self, task_id: str) -> None:
        """Remove a task for good. Raises TaskNotFound."""
        with self._held(task_id) as lease:
            write = Write(lease=lease, body=lease.envelope.body, seq=1)
            self._app.dispatch.repeat("ack", lambda: self._app.dispatch.broker.ack([write], keep_for=0))

    # -- what a retry makes of a task -------------------------------------------------------------

    def _resumed(
        self, found: FatalTask, from_step: str | None, changes: Mapping[str, Any], *, force: bool
    ) -> tuple[bytes, str]:
        task = found.task
        if task is None:
            raise ConfigurationError(
                f"task {found.id} isn't a record, so where it came from isn't known: drop it"
            )
        try:
            check_queue_name(task.queue_name)
        except InvalidName as error:
            raise ConfigurationError(
                f"task {found.id} can't go back to where it came from ({error}): enqueue it anew, then drop it"
            ) from None
        if not force and task.moving is not None:
            raise InDoubt(
                f"an earlier retry of task {found.id} was interrupted: it may be in {task.moving!r} already. "
                "Look there, then repeat with --force"
            )
        if task.raw is not None:
            if from_step or changes:
                raise ConfigurationError(
                    f"task {found.id} couldn't be read, so its step and args can't be changed"
                )
            self._refuse_doubt(found, force=force)
            return base64.b64decode(task.raw), task.queue_name
        steps, index = self._place(found, task, from_step)
        # By name: the chain may have changed, and places in the old one aren't places in the new one.
        before, ahead = task.steps or steps or (), (steps or ())[index:]
        again = [name for name in before[: task.current_handler_index] if name in ahead]
        if again and not force:
            raise InDoubt(
                f"step {again[0]!r} of task {found.id} was completed: --force runs it a second time"
            )
        failed = before[task.current_handler_index : task.current_handler_index + 1]
        if not failed or failed[0] in ahead:
            self._refuse_doubt(found, force=force)
        args = codec.decode_args(task.args_map)
        args.update(changes)
        task = msgspec.structs.replace(
            task,
            args_map=codec.encode_args(args) if changes else task.args_map,
            current_handler_index=index,
            steps=steps,
            result_log=None,
            tries=0,
            moving=None,
            updated_at=codec.now(),
        )
        body = codec.encode(task)
        if len(body) > self._app.max_body - codec.ROOM_TO_BURY:
            raise ConfigurationError(f"with these args task {found.id} is too large: {len(body)} bytes")
        return body, task.queue_name

    def _place(
        self, found: FatalTask, task: Task, from_step: str | None
    ) -> tuple[tuple[str, ...] | None, int]:
        """The chain that the task shall follow, and the index of the step to go on at."""
        job = self._app.jobs.get(task.job_name)
        steps = job.step_names if job is not None else task.steps
        index = task.current_handler_index
        if from_step is not None:
            if steps is None:
                raise ConfigurationError(
                    f"job {task.job_name!r} isn't registered here: name its app with --app"
                )
            if from_step not in steps:
                raise ConfigurationError(
                    f"job {task.job_name!r} has no step {from_step!r}; it has {', '.join(steps)}"
                )
            return steps, steps.index(from_step)
        if steps == task.steps or steps is None or task.steps is None:
            return steps, index
        name = task.steps[index] if 0 <= index < len(task.steps) else None
        if (
            name is not None
            and steps[:index] == task.steps[:index]
            and index < len(steps)
            and steps[index] == name
        ):
            return steps, index
        raise ConfigurationError(
            f"the steps of job {task.job_name!r} have changed since task {found.id} was enqueued: "
            f"say with --from-step where it goes on: {', '.join(steps)}"
        )

    @staticmethod
    def _refuse_doubt(found: FatalTask, *, force: bool) -> None:
        if found.failure.in_doubt and not force:
            step = f"step {found.failure.step!r}" if found.failure.step else "its next step"
            raise InDoubt(
                f"task {found.id} is in doubt: {step} may have been started already. Find out; then --force starts it "
                "again, and --from-step with a later step skips it"
            )

    # -- holding a task ---------------------------------------------------------------------------

    @contextmanager
    def _held(self, task_id: str) -> Iterator[Lease]:
        """Hold one task; on an error it goes back as it was."""
        if Capability.BROWSE in self._app.dispatch.capabilities:
            leases = self._acquire([task_id]) if is_task_id(task_id) else []
            if not leases:
                raise self._not_found(task_id)
            try:
                yield leases[0]
            except _TakenAway:
                raise  # it was given up already
            except Exception:
                self._put_back(leases)
                raise
            return
        with self._all() as leases:
            chosen = [lease for lease in leases if lease.envelope.id == task_id]
            if not chosen:
                raise self._not_found(task_id)
            try:
                yield chosen[0]
            except _TakenAway:
                leases.remove(chosen[0])
                raise
            leases.remove(chosen[0])

    @contextmanager
    def _all(self) -> Iterator[builtins.list[Lease]]:
        """Hold the first tasks; what is left in the list goes back in the order in which it came."""
        leases: builtins.list[Lease] = []
        try:
            while len(leases) < _LOOK_THROUGH and (more := self._acquire(None)):
                leases += more
            yield leases
        finally:
            back = reversed(leases) if self._app.dispatch.limits.returned == "front" else leases
            self._put_back(list(back))

    def _acquire(self, ids: Collection[str] | None) -> builtins.list[Lease]:
        # Not repeated: a first call whose reply was lost would hold what the second asks for.
        return self._app.dispatch.broker.acquire(
            self._app.fatal_queue,
            limit=len(ids) if ids is not None else self._app.dispatch.limits.max_batch,
            wait=0,
            lease_for=min(_HOLD, self._app.dispatch.limits.max_lease or _HOLD),
            ids=ids,
        )

    def _put_back(self, leases: Collection[Lease]) -> None:
        for lease in leases:
            self._release(Write(lease=lease, body=lease.envelope.body, seq=2))

    def _move(self, lease: Lease, body: bytes, queue: str) -> None:
        if Capability.ATOMIC_MOVE not in self._app.dispatch.capabilities:
            lease = self._marked(lease, queue)
        self._release(Write(lease=lease, body=body, seq=1, queue=queue))

    def _marked(self, lease: Lease, queue: str) -> Lease:
        """Mark the task as on its way, and take it again; a crash after that leaves a copy that says so."""
        marked = codec.encode(msgspec.structs.replace(codec.decode(lease.envelope.body), moving=queue))
        self._release(Write(lease=lease, body=marked, seq=1))
        task_id = lease.envelope.id
        end = time.monotonic() + _HOLD
        kept: builtins.list[Lease] = []
        try:
            while time.monotonic() < end:
                for each in self._acquire(
                    [task_id] if Capability.BROWSE in self._app.dispatch.capabilities else None
                ):
                    if each.envelope.id == task_id:
                        return each
                    kept.append(each)
        finally:
            self._put_back(kept)
        raise _TakenAway(
            f"task {task_id} was taken by somebody else in the middle of its move: look, then repeat"
        )

    def _release(self, write: Write) -> None:
        self._app.dispatch.repeat("release", lambda: self._app.dispatch.broker.release([write]))

    def _not_found(self, task_id: str) -> TaskNotFound:
        return TaskNotFound(
            f"no task {task_id} waits in {self._app.fatal_queue!r}, or another command holds it"
        )


def _read(task_id: str, body: bytes) -> FatalTask:
    try:
        return FatalTask(task_id, codec.decode(body), body)
    except codec.Unreadable:
        return FatalTask(task_id, None, body)
