"""Queue: where an app's tasks wait; producers enqueue through it, and its options reach the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
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
        connection: object | None = None,
    ) -> TaskHandle:
        """Store one task; when this returns, the broker has it for good (guarantee G1).

        Args:
            job: a registered job, or its name (see also `App.external`).
            args: the first step's args map, or an object that makes one (see `to_args_map`); None is an empty map.
            delay: seconds before it becomes ready. Needs DELAY.
            priority: 0 to 9, higher first. Needs PRIORITY.
            unique: while a task with this key lives, no second one is stored. Needs UNIQUE.
            task_id: an id of your own; the same id is stored only once. Needs IDEMPOTENT.
            connection: a database connection or session of yours, where the broker lives in that database: the task
                is there if and only if the transaction that is open on it commits. Needs TRANSACTIONAL.

        Returns a handle of the task: of the one that is there already, where id or unique key was.
        Raises UnknownJob, InvalidArgs, PayloadTooLarge, Unsupported: nothing was stored; BrokerUnavailable: it may
        be stored or not, and `ids` names it. With `connection` also ConfigurationError, for one that isn't the
        broker's kind; after BrokerUnavailable roll your transaction back.
        """
        envelopes = self._one(
            job, args, delay=delay, priority=priority, unique=unique, task_id=task_id, connection=connection
        )
        return self._handles(envelopes, self._store(connection, envelopes))[0]

    def enqueue_many(
        self,
        job: Job | str,
        args: Iterable[Any],
        *,
        delay: float = 0.0,
        priority: int = 0,
        connection: object | None = None,
    ) -> list[TaskHandle]:
        """Store one task for each item of `args`; one round trip a batch. Parameters and errors as `enqueue`.

        All items are checked before the first is stored. Not atomic as a whole, unless by `connection`: after
        BrokerUnavailable those named by its `ids` may be stored or not, and the others are.
        """
        envelopes = self._many(job, args, delay=delay, priority=priority, connection=connection)
        return self._handles(envelopes, self._store(connection, envelopes))

    async def aenqueue(
        self, job: Job | str, args: Any = None, *, connection: object | None = None, **options: Any
    ) -> TaskHandle:
        """`enqueue`, for async code: the call runs on a thread. `connection` may be an asynchronous one, and is used
        on this event loop then.
        """
        if connection is None:
            return await asyncio.to_thread(self.enqueue, job, args, **options)
        envelopes = await asyncio.to_thread(self._one, job, args, connection=connection, **options)
        return self._handles(envelopes, await self._app.dispatch.aenqueue_on(connection, envelopes))[0]

    async def aenqueue_many(
        self, job: Job | str, args: Iterable[Any], *, connection: object | None = None, **options: Any
    ) -> list[TaskHandle]:
        """`enqueue_many`, for async code: as `aenqueue`."""
        if connection is None:
            return await asyncio.to_thread(self.enqueue_many, job, args, **options)
        envelopes = await asyncio.to_thread(self._many, job, args, connection=connection, **options)
        return self._handles(envelopes, await self._app.dispatch.aenqueue_on(connection, envelopes))

    def _one(
        self,
        job: Job | str,
        args: Any,
        *,
        delay: float = 0.0,
        priority: int = 0,
        unique: str | None = None,
        task_id: str | None = None,
        connection: object | None,
    ) -> list[Envelope]:
        """What `enqueue` stores, checked."""
        if task_id is not None:
            self._app.dispatch.need(Capability.IDEMPOTENT, "task_id=")
            check_task_id(task_id)
        self._check_options(delay, priority, connection)
        return [self._envelope(job, args, delay=delay, priority=priority, unique=unique, task_id=task_id)]

    def _many(
        self,
        job: Job | str,
        args: Iterable[Any],
        *,
        delay: float = 0.0,
        priority: int = 0,
        connection: object | None,
    ) -> list[Envelope]:
        """What `enqueue_many` stores, checked."""
        self._check_options(delay, priority, connection)
        return [self._envelope(job, each, delay=delay, priority=priority) for each in args]

    def _store(self, connection: object | None, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        dispatch = self._app.dispatch
        return (
            dispatch.enqueue(envelopes) if connection is None else dispatch.enqueue_on(connection, envelopes)
        )

    def _handles(self, envelopes: Sequence[Envelope], there: Mapping[str, str]) -> list[TaskHandle]:
        return [TaskHandle(self._app, there.get(each.id, each.id)) for each in envelopes]

    def _check_options(self, delay: float, priority: int, connection: object | None) -> None:
        if isinstance(delay, bool) or not isinstance(delay, (int, float)) or not 0 <= delay < float("inf"):
            raise ConfigurationError(f"delay is a number of seconds from 0, not {delay!r}")
        if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 9:
            raise ConfigurationError(f"priority is a whole number from 0 to 9, not {priority!r}")
        if connection is not None:  # before the args are read, which may come from there
            self._app.dispatch.need(Capability.TRANSACTIONAL, "connection=")

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
