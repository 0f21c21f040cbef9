"""Strangers: messages that are no pointers. Tasks from before there was a record store, or anybody's bytes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import msgspec

from gotasks.broker import Broker, Capability, Lease
from gotasks.errors import Rejected

logger = logging.getLogger("gotasks")

#: A task that comes with a death isn't offered before that is counted. Seconds.
_ASIDE = 60.0

#: A lease that is over at once. Seconds.
_NO_TIME = 0.001


class Strangers:
    """Makes tasks of them: the engine runs what it can read, and buries the rest with a reason. Thread-safe."""

    def __init__(self, store: Broker) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._waiting: list[Lease] = []

    def after_fork(self) -> None:
        """In the child: what waits here is the parent's."""
        self.__init__(self._store)  # type: ignore[misc]

    def store(self, found: Sequence[Lease]) -> list[Lease]:
        """Store them, and those that couldn't be stored before; those that RabbitMQ needn't keep any longer.

        Raises BrokerUnavailable. What isn't stored is held here, and comes again if this process ends.
        """
        if not found and not self._waiting:
            return []
        with self._lock:
            waiting, self._waiting = [*self._waiting, *found], []
        stored: list[Lease] = []
        known: list[Lease] = []
        try:
            while waiting:
                where = self._take_in(waiting[0])
                if where is not None:
                    (known if where else stored).append(waiting[0])
                del waiting[0]
        finally:
            with self._lock:
                self._waiting += waiting
            _tell(stored, "are tasks there now")
            _tell(known, "have the ids of tasks that it knows, and are thrown away")
        return [*stored, *known]

    def _take_in(self, message: Lease) -> bool | None:
        """Store one; whether its id was there already. None if it doesn't fit."""
        envelope = message.envelope
        # Of one that was taken before, somebody may have begun a step. Until that is said, nobody gets it.
        aside = message.deaths > 0 and Capability.DELAY in self._store.capabilities
        try:
            there = self._store.enqueue([msgspec.structs.replace(envelope, delay=_ASIDE if aside else 0.0)])
        except Rejected as error:
            logger.error(
                "A message of %d bytes in queue %r of RabbitMQ, %s, can't become a task: %s. Remove it there",
                len(envelope.body),
                envelope.queue,
                envelope.id,
                error,
            )
            return None
        if message.deaths:
            self._store.acquire(envelope.queue, limit=1, wait=0.0, lease_for=_NO_TIME, ids=[envelope.id])
        return bool(there)


def _tell(messages: Sequence[Lease], what: str) -> None:
    if messages:
        ids = ", ".join(f"{each.envelope.id} in {each.envelope.queue!r}" for each in messages[:3])
        logger.warning(
            "%d messages in RabbitMQ didn't come through the record store and %s: %s",
            len(messages),
            what,
            ids,
        )
