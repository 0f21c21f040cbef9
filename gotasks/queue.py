"""Queue: where an app's tasks wait; producers enqueue through it, and its options reach the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gotasks import codec
from gotasks.args import to_args_map
from gotasks.broker import Capability, Envelope
from gotasks.errors import ConfigurationError, PayloadTooLarge
from gotasks.handle import TaskHandle
from gotasks.job import Job
from gotasks.settings import QueueOptions
from gotasks.task import Task, check_queue_name, check_task_id, new_task_id

if TYPE_CHECKING:
    from gotasks.app import App


class Queue:
    """A named queue of an app. Made by `App.queue`. Safe from any thread."""

    def __init__(self, app: App, name: str, options: QueueOptions) -> None:
        self._app = app
        self.name = check_queue_name(name)
        self.options = options

    def __repr__(self) -> str:
        return f"<Queue {self.name}>"

    def enqueue(
        self,
        job: Job | str,
        args: Any = None,
        *,
        delay: float = 0.0,
        priority: int = 0,
        unique: str | None = None,
        task_id: str | None = None,
    ) -> TaskHandle:
        """Store one task; when this returns, the broker has it for good (guarantee G1).

        Args:
            job: a registered job, or its name (see also `App.external`).
            args: the first step's args map, or an object that makes one (see `to_args_map`); None is an empty map.
            delay: seconds before it becomes ready. Needs DELAY.
            priority: 0 to 9, higher first. Needs PRIORITY.
            unique: while a task with this key lives, no second one is stored. Needs UNIQUE.
            task_id: an id of your own; the same id is stored only once. Needs IDEMPOTENT.

        Returns a handle of the task: of the one that is there already, where id or unique key was.
        Raises UnknownJob, InvalidArgs, PayloadTooLarge, Unsupported: nothing was stored; BrokerUnavailable: it may
        be stored or not, and `ids` names it.
        """
        dispatch = self._app.dispatch
        if task_id is not None:
            dispatch.need(Capability.IDEMPOTENT, "task_id=")
            check_task_id(task_id)
        _check_options(delay, priority)
        envelope = self._envelope(job, args, delay=delay, priority=priority, unique=unique, task_id=task_id)
        there = dispatch.enqueue((envelope,))
        return TaskHandle(self._app, there.get(envelope.id, envelope.id))

    def enqueue_many(
        self, job: Job | str, args: Iterable[Any], *, delay: float = 0.0, priority: int = 0
    ) -> list[TaskHandle]:
        """Store one task for each item of `args`; one round trip a batch. Parameters and errors as `enqueue`.

        All items are checked before the first is stored. Not atomic as a whole: after BrokerUnavailable those
        named by its `ids` may be stored or not, and the others are.
        """
        _check_options(delay, priority)
        envelopes = [self._envelope(job, each, delay=delay, priority=priority) for each in args]
        there = self._app.dispatch.enqueue(envelopes)
        return [TaskHandle(self._app, there.get(each.id, each.id)) for each in envelopes]

    async def aenqueue(self, job: Job | str, args: Any = None, **options: Any) -> TaskHandle:
        """`enqueue`, for async code: the call runs on a thread."""
        return await asyncio.to_thread(self.enqueue, job, args, **options)

    async def aenqueue_many(self, job: Job | str, args: Iterable[Any], **options: Any) -> list[TaskHandle]:
        """`enqueue_many`, for async code: the call runs on a thread."""
        return await asyncio.to_thread(self.enqueue_many, job, args, **options)

    def _envelope(
        self,
        job: Job | str,
        args: Any,
        *,
        delay: float = 0.0,
        priority: int = 0,
        unique: str | None = None,
        task_id: str | None = None,
    ) -> Envelope:
        name, steps = self._app.chain(job)
        raw = codec.encode_args(args if type(args) is dict else to_args_map({} if args is None else args))
        now = codec.now()
        task = Task(
            task_id=task_id or new_task_id(),
            created_at=now,
            updated_at=now,
            queue_name=self.name,
            job_name=name,
            args_map=raw,
            current_handler_index=0,
            original_args_map=raw,
            v=codec.VERSION,
            steps=steps,
            not_before=codec.in_future(delay) if delay else None,
        )
        body = codec.encode(task)
        largest = self._app.max_body - codec.ROOM_TO_BURY
        if len(body) > largest:
            raise PayloadTooLarge(
                f"a task of {len(body)} bytes: {largest} fit. Store what is large elsewhere and pass where it is, "
                "or raise App(max_payload=…)",
                ids=[task.task_id],
            )
        return Envelope(
            id=task.task_id, queue=self.name, body=body, delay=delay, priority=priority, unique=unique
        )


def _check_options(delay: float, priority: int) -> None:
    if isinstance(delay, bool) or not isinstance(delay, (int, float)) or not 0 <= delay < float("inf"):
        raise ConfigurationError(f"delay is a number of seconds from 0, not {delay!r}")
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 9:
        raise ConfigurationError(f"priority is a whole number from 0 to 9, not {priority!r}")
