"""Pointers: messages that say of a queue that there is something to do. What is lost of them costs time, never a task.

A pointer has a task's id and no body. Who gets one looks into the record store, and takes whatever is next there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from gotasks.broker import Broker, Envelope, Lease, Write
from gotasks.errors import BrokerClosed, BrokerUnavailable

logger = logging.getLogger("gotasks")

#: How often a server that was down is tried again. Seconds.
_AGAIN = 0.5

#: A pointer is settled at once; nothing needs it for longer. Seconds.
_BRIEFLY = 60.0


class Pointers:
    """RabbitMQ, where it works. Where it doesn't, nobody waits for it: that is told once, and so is its return.

    Thread-safe. Nothing raises but `take`, and that only BrokerClosed.
    """

    def __init__(self, line: Broker) -> None:
        self._line = line
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._down = False
        self._probe: threading.Thread | None = None

    def after_fork(self) -> None:
        """In the child: who looked whether the server is back is a thread of the parent's."""
        closed = self._over.is_set()
        self._begin()
        if closed:
            self._over.set()

    def put(self, queue: str, ids: Sequence[str]) -> None:
        """Leave a pointer for each of these tasks, which were stored in `queue`."""
        if ids and not self._down:
            try:
                self._line.enqueue([Envelope(id=each, queue=queue, body=b"") for each in ids])
            except Exception as error:
                self._fail(queue, error)

    def take(self, queue: str, *, limit: int, wait: float) -> list[Lease] | None:
        """Up to `limit` pointers, or messages that are none; `[]` after `wait` seconds. None if RabbitMQ is down."""
        if self._down:
            return None
        try:
            return self._line.acquire(queue, limit=limit, wait=wait, lease_for=_BRIEFLY)
        except BrokerClosed:
            raise
        except Exception as error:
            self._fail(queue, error)
            return None

    def settle(self, pointers: Sequence[Lease]) -> None:
        """They have served. What can't be told to RabbitMQ comes again, and then leads to nothing."""
        if pointers and not self._down:
            try:
                self._line.ack([Write(lease=each, body=b"", seq=1) for each in pointers], keep_for=0)
            except Exception as error:
                self._fail(pointers[0].envelope.queue, error)

    def purge(self, queue: str) -> None:
        """Remove those of a queue in which nothing waits any more."""
        if not self._down:
            try:
                self._line.purge(queue)
            except Exception as error:
                self._fail(queue, error)

    def interrupt(self, queue: str) -> None:
        """Let who waits in `take` return."""
        self._line.interrupt(queue)

    def warnings(self) -> Sequence[str]:
        """What the server says of its settings, or that there is none."""
        try:
            return self._line.warnings()
        except BrokerUnavailable as error:
            return [f"{error}. Until RabbitMQ is there, workers look for tasks in the record store"]

    def close(self) -> None:
        """Let go of the server. Idempotent."""
        self._over.set()
        self._line.close()
        with self._lock:
            probe = self._probe
        if probe is not None:
            probe.join()

    def _fail(self, queue: str, error: Exception) -> None:
        """RabbitMQ has failed: leave it alone until it's back."""
        with self._lock:
            if self._down or self._over.is_set():
                return
            self._down = True
            self._probe = threading.Thread(
                target=self._look_for_it, args=(queue,), name="gotasks-pointers", daemon=True
            )
            self._probe.start()
        logger.warning(
            "RabbitMQ is left alone until it works again: %s. No task is lost; workers look for them in the record "
            "store meanwhile",
            error if isinstance(error, BrokerUnavailable) else f"{type(error).__name__}: {error}",
        )

    def _look_for_it(self, queue: str) -> None:
        """Wait until it works again."""
        while not self._over.wait(_AGAIN):
            if self._works(queue):
                self._down = False
                logger.warning("RabbitMQ works again")
                return

    def _works(self, queue: str) -> bool:
        """Whether both of its connections do. A pointer to nothing harms nobody."""
        try:
            self._line.stats(queue)
            self._line.enqueue([Envelope(id="nothing", queue=queue, body=b"")])
        except Exception:
            return False
        return True
