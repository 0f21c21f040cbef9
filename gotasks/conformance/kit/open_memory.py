"""OpenMemory: the memory broker as `kit.served` serves it, and as the faulty brokers change it."""

from __future__ import annotations

import hashlib
import heapq
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from gotasks.broker import Envelope, State
from gotasks.errors import Rejected
from gotasks.memory import MemoryBroker, _Task


class OpenMemory(MemoryBroker):
    """A memory broker that can be looked into, reached around, filled, and carried over a restart of its server."""

    #: So many seconds after its answer the server writes the journal. 0: before it.
    lag: ClassVar[float] = 0.0

    #: Whether its server has no room for anything more.
    full = False

    def enqueue_when_full(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        """What an enqueue does then."""
        raise Rejected("there is no room for more", ids=[each.id for each in envelopes])

    def disturbed(self) -> None:
        """Its server has forgotten what clients prepared on it: here that is nothing."""

    def holdings(self) -> list[dict[str, Any]]:
        """All that it stores, for `restore`."""
        with self._changed:
            return [dict(vars(task)) for task in self._tasks.values()]

    def restore(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        """Store what `holdings` gave. Times are of the monotonic clock, which outlives a process."""
        with self._changed:
            for values in sorted(tasks, key=lambda each: cast(int, each["place"])):
                task = _Task(Envelope(id=values["id"], queue=values["queue"], body=values["body"]))
                vars(task).update(values)
                self._tasks[task.id] = task
                if task.unique is not None and task.state not in (State.DONE, State.CANCELLED):
                    self._unique[task.unique] = task.id
                if task.state is State.LEASED:
                    self._leased[task.queue][task.id] = task
                elif task.state in (State.READY, State.SCHEDULED):
                    delay = task.until - time.monotonic() if task.state is State.SCHEDULED else 0.0
                    self._put(task, max(0.0, delay), next(self._back))
                else:
                    heapq.heappush(self._ended, (task.until, task.id))

    def dump(self) -> dict[str, int]:
        """The size of each element."""
        with self._changed:
            self._forget_old_records()
            return {task.id: len(task.body) for task in self._tasks.values()}

    def evict(self, task_id: str) -> None:
        """Take a task away, and leave its place in the queue."""
        with self._changed:
            del self._tasks[task_id]

    def put_raw(self, queue: str, data: bytes) -> None:
        """Put in what isn't an envelope: it gets an id from its bytes, and a new one if it comes again."""
        digest = hashlib.sha256(data).hexdigest()[:32]
        place = next(self._back)
        self.enqueue([Envelope(id=f"foreign-{digest}-{place}", queue=queue, body=data)])
