"""IoThread: one thread with an event loop; all that speaks with the server happens there."""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: What a fork left in the child: the parent's loops, which must not be touched, nor collected.
_FORSAKEN: list[object] = []


class TimeIsUp(Exception):
    """What was to be done took too long."""


class _Call(Generic[T]):
    """Something that the loop does and another thread waits for."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._task: asyncio.Task[T] | None = None
        self._over = threading.Lock()
        self._over.acquire()

    def begin(self) -> None:
        """On the loop's thread."""
        self._task = asyncio.ensure_future(self._work())
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        """On the loop's thread."""
        if self._task is not None:
            self._task.cancel()

    def wait(self, within: float | None) -> bool:
        """Wait until it's over; False after `within` seconds."""
        return self._over.acquire(timeout=-1 if within is None else within)

    def result(self) -> T:
        """What came of it. Raises what it raised, CancelledError if it was stopped."""
        assert self._task is not None
        if self._task.cancelled():
            raise CancelledError
        return self._task.result()

    def _end(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # whoever gave up waiting mustn't be reminded
        self._over.release()


class IoThread:
    """Starts with the first call. `run` from any thread but its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.SelectorEventLoop | None = None
        self._selector: selectors.BaseSelector | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    def run(
        self,
        work: Callable[[], Coroutine[Any, Any, T]],
        within: float | None = None,
        *,
        goes_on: bool = False,
    ) -> T:
        """Have the loop do this, and wait for what comes of it.

        Raises TimeIsUp after `within` seconds; then it is cancelled, or with `goes_on` it isn't. Raises CancelledError
        if the thread is stopped.
        """
        call = _Call(work)
        with self._lock:
            loop = self._started()
            loop.call_soon_threadsafe(call.begin)
        over = False
        try:
            over = call.wait(within)
        finally:  # also of Ctrl-C in the caller's thread
            if not over and not goes_on:
                self.soon(call.cancel)
        if not over:
            if goes_on:
                raise TimeIsUp
            call.wait(None)
            with suppress(CancelledError):
                return call.result()  # which came at the last moment
            raise TimeIsUp
        return call.result()

    def soon(self, call: Any, *args: Any) -> None:
        """Have the loop call this soon; nothing happens if it doesn't run."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(call, *args)

    def stop(self, last: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Do `last`, cancel all that waits, and end the thread. Idempotent."""
        with self._lock:
            loop, thread = self._loop, self._thread
            if self._stopped or loop is None or thread is None:
                self._stopped = True
                return
            self._stopped = True
            asyncio.run_coroutine_threadsafe(self._end(last()), loop)
        thread.join()

    def after_fork(self) -> None:
        """In the child: close its copies of the parent's descriptors, and say nothing on them."""
        if self._loop is not None and not self._stopped and self._selector is not None:
            _FORSAKEN.append((self._loop, self._selector, self._thread))
            descriptors = [key.fd for key in self._selector.get_map().values()]
            with suppress(AttributeError):
                descriptors.append(self._selector.fileno())  # type: ignore[attr-defined]
            for each in descriptors:
                with suppress(OSError):
                    os.close(each)
        stopped = self._stopped
        IoThread.__init__(self)
        self._stopped = stopped

    def _started(self) -> asyncio.SelectorEventLoop:
        if self._stopped:
            raise CancelledError
        if self._loop is None:
            self._selector = selectors.DefaultSelector()
            self._loop = asyncio.SelectorEventLoop(self._selector)
            self._thread = threading.Thread(
                target=self._main, args=(self._loop,), name="gotasks-rabbitmq", daemon=True
            )
            self._thread.start()
        return self._loop

    @staticmethod
    def _main(loop: asyncio.SelectorEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    async def _end(self, last: Coroutine[Any, Any, object]) -> None:
        try:
            with suppress(Exception):
                await last
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        finally:
            asyncio.get_running_loop().stop()
