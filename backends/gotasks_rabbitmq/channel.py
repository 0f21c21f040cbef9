"""Channel: a channel of a connection, on which tasks are put into queues. For the I/O thread only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from gotasks_rabbitmq import frames
from gotasks_rabbitmq.closed import Closed
from gotasks_rabbitmq.driver import Driver


class Channel(ABC):
    """Whoever waits for an answer is told Closed when it ends, and what is asked of it after that raises it.

    What puts, gets or settles a task doesn't send a frame, but returns it: who has many sends them at once.
    """

    def __init__(self, driver: Driver, number: int) -> None:
        self._driver = driver
        self._number = number
        self._endings: list[Callable[[Closed], None]] = []
        self.returned: set[int] = set()  #: the stamps of messages that no queue took
        self.closed: Closed | None = None
        driver.readers[number] = self._on_frame

    def at_end(self, call: Callable[[Closed], None]) -> None:
        """Have this called when the channel ends, before anybody who waits for an answer is told."""
        self._endings.append(call)

    def publish(self, queue: str, task_id: str, stamp: int, body: bytes, *, again: bool = False) -> bytes:
        """Put a task into a queue; `returned` tells if there is no such queue. `again`: see `Held.again`."""
        self._check_open()
        most = self._driver.body_max_length
        name, key = queue.encode(), task_id.encode()
        return frames.publish(self._number, name, key, body, stamp=stamp, again=again, most=most)

    @abstractmethod
    def abandon(self) -> None:
        """Close it, and so give back what is unsettled on it. Returns at once."""

    def _check_open(self) -> None:
        if self.closed is not None:
            raise self.closed

    @abstractmethod
    def _on_frame(self, kind: int, payload: bytes) -> bool:
        """Take a frame, unless it is one for pika."""

    def _end(self, closed: Closed) -> None:
        self.closed = closed
        endings, self._endings = self._endings, []  # they know the channel, and would keep it
        for call in endings:
            call(closed)
