"""Dispatch: wraps any broker once. What every backend needs and none should write: refusal, repeats, facts.

* A capability that the broker doesn't claim is refused here with a sentence (guarantee G10).
* Calls that may safely be sent again are repeated while the server can't be reached: reads always, an enqueue
  where the broker knows its ids (IDEMPOTENT) long enough. `acquire` is left to the fetcher, which asks again
  anyway; writes under a lease are left to the committer, which repeats them until they are answered.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from gotasks.broker import Broker, Capability, Envelope, QueueStats, Record, State
from gotasks.errors import (
    BrokerClosed,
    BrokerUnavailable,
    GotasksError,
    PayloadTooLarge,
    Rejected,
    Unsupported,
)
from gotasks.events import BrokerDown, BrokerUp, Events

T = TypeVar("T")

#: How long a call of a program (not of a worker) waits for a server that can't be reached. Seconds.
PATIENCE = 5.0

#: A repeated enqueue needs the id to be known at least this long after the task has ended. Seconds.
_KEPT_LONG_ENOUGH = 60.0


class Backoff:
    """Sleeps between repeats: from 50 ms, doubling up to 2 s, each shortened at random by up to half."""

    def __init__(self) -> None:
        self._next = 0.05

    def delay(self) -> float:
        """The next sleep, in seconds."""
        delay, self._next = self._next, min(self._next * 2, 2.0)
        return delay * random.uniform(0.5, 1.0)


class Dispatch:
    """A broker as the core sees it. Thread-safe as the broker is. Raises what the broker raises."""

    def __init__(self, broker: Broker, events: Events, *, keep_for: float) -> None:
        """`keep_for`: how long the app keeps the records of finished tasks, in seconds."""
        self.broker = broker
        self.capabilities = broker.capabilities
        self.limits = broker.limits
        self._events = events
        self._repeat_enqueue = Capability.IDEMPOTENT in broker.capabilities and keep_for >= _KEPT_LONG_ENOUGH

    def need(self, capability: Capability, what: str) -> None:
        """Raise Unsupported, with `what` in the sentence, unless the broker claims `capability`."""
        if capability not in self.capabilities:
            kind = type(self.broker).__name__
            raise Unsupported(f"{what} needs a broker with {capability.name}, and this {kind} has none")

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        """See `Broker.enqueue`. All of one queue; split into batches. An error carries the ids that it leaves open.

        Raises Rejected with `ids` before anything is sent if an envelope can't be stored.
        """
        self._check(envelopes)
        there: dict[str, str] = {}
        for start in range(0, len(envelopes), self.limits.max_batch):
            batch = envelopes[start : start + self.limits.max_batch]
            try:
                there.update(self._enqueue_batch(batch))
            except BrokerUnavailable as error:
                raise BrokerUnavailable(*error.args, ids=[each.id for each in envelopes[start:]]) from error
            except GotasksError:
                raise
            except Exception as error:
                message = f"the broker failed in a way that it doesn't foresee: {type(error).__name__}"
                raise BrokerUnavailable(message, ids=[each.id for each in envelopes[start:]]) from error
        return there

    def _enqueue_batch(self, batch: Sequence[Envelope]) -> Mapping[str, str]:
        if not self._repeat_enqueue:
            return self.broker.enqueue(batch)
        tried = False

        def attempt() -> Mapping[str, str]:
            nonlocal tried
            repeated, tried = tried, True
            try:
                there = self.broker.enqueue(batch)
            except (Rejected, BrokerClosed) as error:
                if not repeated:
                    raise
                # Certain of this attempt only: an earlier one may have stored them.
                raise BrokerUnavailable(str(error)) from error
            # On a repeat an id that is there under itself is our own first attempt, which did arrive.
            return {key: value for key, value in there.items() if key != value} if repeated else there

        return self.repeat("enqueue", attempt)

    def stats(self, queue: str) -> QueueStats:
        """See `Broker.stats`."""
        return self.repeat("stats", lambda: self.broker.stats(queue))

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        """See `Broker.get`."""
        self.need(Capability.RECORDS, "asking for a task's state")
        return self.repeat("get", lambda: self.broker.get(ids))

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        """See `Broker.browse`."""
        self.need(Capability.BROWSE, "looking into a queue")
        return self.repeat("browse", lambda: self.broker.browse(queue, state=state, limit=limit, after=after))

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        """See `Broker.cancel`."""
        self.need(Capability.CANCEL, "cancelling a task")
        return self.broker.cancel(ids, keep_for=keep_for)

    def purge(self, queue: str) -> int:
        """See `Broker.purge`."""
        return self.repeat("purge", lambda: self.broker.purge(queue))

    def close(self) -> None:
        """See `Broker.close`."""
        self.broker.close()

    def _check(self, envelopes: Sequence[Envelope]) -> None:
        for envelope in envelopes:
            if envelope.delay:
                self.need(Capability.DELAY, "delay=")
            if envelope.priority:
                self.need(Capability.PRIORITY, "priority=")
            if envelope.unique is not None:
                self.need(Capability.UNIQUE, "unique=")
        longest = self.limits.max_delay
        late = [each.id for each in envelopes if longest is not None and each.delay > longest]
        if late:
            raise Rejected(f"this broker delays a task by {longest:g} s at the most", ids=late)
        most = self.limits.max_payload
        large = [each.id for each in envelopes if most is not None and len(each.body) > most]
        if large:
            raise PayloadTooLarge(f"this broker stores {most} bytes a task at the most", ids=large)

    def repeat(self, what: str, call: Callable[[], T]) -> T:
        """`call()`, again with backoff while it raises BrokerUnavailable and PATIENCE lasts."""
        end = time.monotonic() + PATIENCE
        backoff = Backoff()
        attempt = 0
        while True:
            attempt += 1
            try:
                result = call()
            except BrokerUnavailable as error:
                self._events.emit(BrokerDown.by(error, what, attempt))
                delay = backoff.delay()
                if time.monotonic() + delay > end:
                    raise
                time.sleep(delay)
            else:
                if attempt > 1:
                    self._events.emit(BrokerUp(what, attempt))
                return result
