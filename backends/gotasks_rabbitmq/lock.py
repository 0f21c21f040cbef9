"""Lock: one client of a server at a time, among all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from gotasks_rabbitmq.closed import Closed

#: A queue is for another connection only.
_LOCKED = 405

#: So often is looked whether somebody else is done. Seconds.
_GLANCE = 0.02


@asynccontextmanager
async def alone(asking: Callable[..., Coroutine[Any, Any, Any]], name: str) -> AsyncIterator[None]:
    """Within the block nobody else is inside one of this name. Raises Closed.

    A queue that is for one connection only serves as the lock: it goes with that. `asking` calls a method of a channel,
    which may be lost with it.
    """
    while True:
        try:
            await asking("queue_declare", name, exclusive=True, auto_delete=True)
            break
        except Closed as closed:
            if closed.code != _LOCKED:
                raise
            await asyncio.sleep(_GLANCE)
    try:
        yield
    finally:
        with suppress(Closed):  # it goes with the connection, too
            await asking("queue_delete", name)
