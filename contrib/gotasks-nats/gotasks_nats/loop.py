"""LoopThread: an event loop on a thread of its own, for callers on any thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from gotasks.errors import BrokerClosed, BrokerUnavailable

T = TypeVar("T")

#: Seconds that the last calls may take to end.
_ENDING = 1.0


class LoopThread:
    """Started when it's made."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="gotasks-nats", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T], limit: float) -> T:
        """Run it there, and wait for what it returns or raises; after `limit` seconds BrokerUnavailable."""
        if self._stopped:
            work.close()
            raise BrokerClosed("the broker is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(limit)
        except concurrent.futures.CancelledError:
            raise BrokerUnavailable("the NATS broker was closed before it had an answer") from None
        except concurrent.futures.TimeoutError:
            raise BrokerUnavailable(f"NATS has given no answer within {limit:g} s") from None
        finally:
            future.cancel()

    def soon(self, do: Callable[[], None]) -> None:
        """Do it there, some time soon; or not at all, if it has stopped."""
        if not self._stopped:
            with suppress(RuntimeError):  # it has stopped just now
                self._loop.call_soon_threadsafe(do)

    def stop(self, last: Coroutine[Any, Any, None]) -> None:
        """Cancel all calls, do something last, and end the thread."""
        self._stopped = True
        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._end(last)))
        self._thread.join(5)

    async def _end(self, last: Coroutine[Any, Any, None]) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        with suppress(Exception):  # whatever a dying connection raises
            await asyncio.wait_for(last, _ENDING)
        for each in others | asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()
        await asyncio.sleep(0)
        self._loop.stop()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for each in left:
                each.cancel()
            if left:
                self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(asyncio.sleep(0))  # transports close on their next turn
            self._loop.close()
