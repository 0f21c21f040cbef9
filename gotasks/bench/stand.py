"""Stand: an app in a queue of its own on somebody's broker, whose handlers note when they were started."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING

from gotasks.app import App
from gotasks.args import ArgsMap
from gotasks.bench.counting import CountingBroker, Counts
from gotasks.broker import Broker
from gotasks.errors import BrokerUnavailable, ConfigurationError, GotasksError
from gotasks.events import BrokerDown, Event, TaskBuried
from gotasks.job import Job, step
from gotasks.worker.worker import Worker

if TYPE_CHECKING:
    from typing_extensions import Self

#: Steps of the job `chain`.
STEPS = 3

#: Short, since what a broken run has left is taken away when its lease is over. Seconds.
_LEASE = 10.0

#: So many tasks for each slot a worker finds at least.
ROUNDS = 5

#: Bodies that wait at the same time make up this many bytes, and never more than the second number, since the server is
#: somebody's. Those of one call of `enqueue_many` make up the third, and are so many.
_ROOM = 32 * 1024 * 1024
_MOST = 256 * 1024 * 1024
_CALL = 1024 * 1024
_BATCH = 1000

#: What a task has beside its args, in bytes. They are in there twice: as they are, and as they were at first.
_FRAME = 500

_GRACE = 10.0


class Stand:
    """Leave it to remove all that it has put on the broker. Nothing of it outlives its end: it keeps no records."""

    def __init__(self, broker: Broker, queue: str, *, slots: int, payload: int) -> None:
        """`queue`: nobody else's. `slots` of the worker; `payload`: bytes of a task's args map, as near as that goes.

        Raises ConfigurationError if both together are too much for somebody's server.
        """
        body = 2 * payload + _FRAME
        least = ROUNDS * slots * body
        if least > _MOST:
            raise ConfigurationError(
                f"{slots} slots with args of {payload} bytes need {least >> 20} MiB on the server at the same time, "
                f"and {_MOST >> 20} is the most: take fewer slots, or smaller args"
            )
        self.name = queue
        self.slots = slots
        self.broker = CountingBroker(broker)
        self.app = App(self.broker, task_ttl=0, fatal_queue=f"{self.name}-fatal")
        self.queue = self.app.queue(self.name, max_limit=slots, lease=_LEASE)
        self.one = self.app.register("one", self._handler)
        self.chain = self.app.register(
            "chain", *(step(self._handler, name=f"step-{number}") for number in range(STEPS))
        )
        self.args: ArgsMap = {"data": "x" * max(0, payload - len('{"data":""}'))}
        #: How many tasks may wait, and how many go into one call.
        self.room = max(ROUNDS * slots, _ROOM // body)
        self.batch = max(1, min(_BATCH, self.broker.limits.max_batch, _CALL // body))
        #: When the handlers of the latest worker were started.
        self.starts: SimpleQueue[float] = SimpleQueue()
        self._numbers = itertools.count()
        self._moments: dict[int, Counts | None] = {}
        self._trouble: GotasksError | None = None
        self._buried = False
        self.app.events.listen(self._listen)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            if self._enqueued:
                self.empty()
            if self._buried:
                self.app.dispatch.purge(self.app.fatal_queue)
        except GotasksError as error:
            raise BrokerUnavailable(
                f"{error}. What this run has left there waits in the queue {self.name}: gotasks purge {self.name}"
            ) from error
        finally:
            self.app.close()

    @contextmanager
    def worker(self, moments: Collection[int] = ()) -> Iterator[Mapping[int, Counts | None]]:
        """A worker of this process serves the queue within the block.

        Gives what was counted when it began its start number N (from 0 on), for each N of `moments`; None until then.
        """
        self.starts, self._numbers = SimpleQueue(), itertools.count()
        self._moments = dict.fromkeys(moments)
        # Not by `App.worker`, for which the environment may say other options: those of the user's own queues.
        with Worker(self.app, {self.name: self.queue.options}, grace=_GRACE):
            yield self._moments

    def fill(self, job: Job, tasks: int) -> None:
        """Enqueue so many, in as many calls as it takes."""
        for start in range(0, tasks, self.batch):
            self.queue.enqueue_many(job, [self.args] * min(self.batch, tasks - start))

    def check(self) -> None:
        """Raise GotasksError if a call has failed since the last time, or a task: then figures say nothing."""
        if self._trouble is not None:
            raise self._trouble

    def empty(self) -> None:
        """Remove whatever is in the queue."""
        self.app.dispatch.empty(self.name, lease=_LEASE)

    @property
    def _enqueued(self) -> bool:
        """Whether anything may have been put there."""
        return "enqueue" in self.broker.counts().methods

    def _handler(self, _args: ArgsMap) -> None:
        self.starts.put(time.monotonic())
        number = next(self._numbers)  # on one thread each
        if number in self._moments:
            self._moments[number] = self.broker.counts()

    def _listen(self, event: Event) -> None:
        if isinstance(event, BrokerDown):
            self._trouble = BrokerUnavailable(
                f"the broker failed in the middle ({event.what}): {event.error}"
            )
        elif isinstance(event, TaskBuried):
            self._buried = True
            self._trouble = GotasksError(f"a task failed at {event.step!r}: {event.error}")
