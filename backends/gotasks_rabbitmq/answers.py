"""Answers: what the server says to several questions that were sent together, for who waits for all of them."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from gotasks_rabbitmq.closed import Closed

K = TypeVar("K")
V = TypeVar("V")


class Answers(Generic[K, V]):
    """One answer to each question, known by a key. A channel that ends answers with Closed.

    It is one thing to wait for: a future, and a turn of the loop, for each question would cost more than the question.
    """

    def __init__(self, count: int) -> None:
        """`count`: how many answers there will be."""
        self._count = count
        self._all: list[tuple[K, V | Closed]] = []
        self._complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def add(self, key: K, answer: V | Closed) -> None:
        """An answer has come."""
        self._all.append((key, answer))
        if len(self._all) == self._count and not self._complete.done():
            self._complete.set_result(None)

    async def all(self) -> list[tuple[K, V | Closed]]:
        """All of them, as soon as they are here, in the order in which they came."""
        if self._count:
            await self._complete
        return self._all
