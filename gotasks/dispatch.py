"""Dispatch: wraps any broker once. What every backend needs and none should write: refusal, repeats, facts.

* A capability that the broker doesn't claim is refused here with a sentence (guarantee G10).
* Calls that may safely be sent again are repeated while the server can't be reached: reads always, an enqueue
  where the broker knows its ids (IDEMPOTENT) long enough. `acquire` is left to the fetcher, which asks again
  anyway; writes under a lease are left to the committer, which repeats them until they are answered. Nothing is
  repeated in a transaction of the caller's: after an error it's the caller's to roll back.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from gotasks.broker import Broker, Capability, Envelope, QueueStats, Record, State, Write
from gotasks.errors import (
    BrokerClosed,
    BrokerUnavailable,
    ConfigurationError,
    GotasksError,
    PayloadTooLarge,
    Rejected,
    Unsupported,
)
from gotasks.events import BrokerDown, BrokerUp, Events
from gotasks.task import is_task_id

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


class _Naming:
    """What leaves the envelopes from `start` on open is BrokerUnavailable, and names them. (A class: it costs less.)"""

    __slots__ = ("_envelopes", "_start")

    def __init__(self, envelopes: Sequence[Envelope], start: int) -> None:
        self._envelopes, self._start = envelopes, start

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if not isinstance(error, Exception):
            return
        if isinstance(error, BrokerUnavailable):
            said = error.args
        elif isinstance(error, GotasksError):
            return
        else:
            said = (f"the broker failed in a way that it doesn't foresee: {type(error).__name__}",)
        raise BrokerUnavailable(*said, ids=[each.id for each in self._envelopes[self._start :]]) from error


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
        for start, batch in self._batches(envelopes):
            with _Naming(envelopes, start):
                there.update(self._enqueue_batch(batch))
        return there

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        """See `Broker.enqueue_on`. Split and checked as by `enqueue`; nothing is repeated.

        BrokerUnavailable names all that isn't certain to be in the transaction.
        """
        self._check_transactional(envelopes)
        there: dict[str, str] = {}
        for start, batch in self._batches(envelopes):
            with _Naming(envelopes, start):
                there.update(self.broker.enqueue_on(connection, batch))
        return there

    async def aenqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        """`enqueue_on`, on the event loop of `connection`. See `Broker.aenqueue_on`."""
        self._check_transactional(envelopes)
        there: dict[str, str] = {}
        for start, batch in self._batches(envelopes):
            with _Naming(envelopes, start):
                there.update(await self.broker.aenqueue_on(connection, batch))
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
            except (Rejected, BrokerClosed, ConfigurationError) as error:
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
        askable = [each for each in ids if is_task_id(each)]
        return self.repeat("get", lambda: self.broker.get(askable)) if askable else {}

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        """See `Broker.browse`."""
        self.need(Capability.BROWSE, "looking into a queue")
        if limit < 1 or (after is not None and not is_task_id(after)):
            return []
        return self.repeat("browse", lambda: self.broker.browse(queue, state=state, limit=limit, after=after))

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        """See `Broker.cancel`. Not repeated: a second answer wouldn't say what the first call has ended."""
        self.need(Capability.CANCEL, "cancelling a task")
        askable = [each for each in ids if is_task_id(each)]
        return self.broker.cancel(askable, keep_for=keep_for) if askable else ()

    def purge(self, queue: str) -> int:
        """See `Broker.purge`."""
        return self.repeat("purge", lambda: self.broker.purge(queue))

    def empty(self, queue: str, *, lease: float) -> None:
        """Remove all that is in a queue.

        A purge leaves alone what is leased, as what a killed worker held. That is taken when its lease is over, which
        lasts `lease` seconds.
        """
        end = time.monotonic() + lease + self.limits.recovery + 1
        self.purge(queue)
        # The last acquire finds nothing, so the broker knows that nobody has to be woken.
        while True:
            wait = 0.2 if self.stats(queue).leased and time.monotonic() < end else 0.0
            leases = self.broker.acquire(queue, limit=self.limits.max_batch, wait=wait, lease_for=lease)
            self.broker.ack(
                [Write(lease=each, body=each.envelope.body, seq=1) for each in leases], keep_for=0
            )
            if not leases and not wait:
                break

    def close(self) -> None:
        """See `Broker.close`."""
        self.broker.close()

    def _batches(self, envelopes: Sequence[Envelope]) -> Iterator[tuple[int, Sequence[Envelope]]]:
        """What goes into one call each, and where it begins."""
        for start in range(0, len(envelopes), self.limits.max_batch):
            yield start, envelopes[start : start + self.limits.max_batch]

    def _check_transactional(self, envelopes: Sequence[Envelope]) -> None:
        self.need(Capability.TRANSACTIONAL, "connection=")
        self._check(envelopes)

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
