"""LoopThread: one event loop on a thread of its own, where a worker's async handlers run side by side."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any


class StepTimeout(Exception):
    """The handler ran longer than its timeout."""


class LoopThread:
    """Runs coroutines for other threads. Starts at first use. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ticked = time.monotonic()

    def run(
        self,
        work: Callable[[], Awaitable[Any]],
        *,
        timeout: float | None = None,
        started: Callable[[Callable[[], None]], None] | None = None,
    ) -> Any:
        """Await `work()` on the loop and return its result; blocks the calling thread.

        Context variables of the caller are seen by the coroutine. `started` gets a function that cancels it.
        Raises what it raises, `asyncio.CancelledError` if it was cancelled, and StepTimeout `timeout` seconds
        later: in all cases only once the coroutine has really ended.
        """
        loop = self._running()
        outcome: Future[Any] = Future()

        async def supervised() -> None:
            try:
                task = asyncio.ensure_future(work())

                def cancel() -> None:
                    with suppress(RuntimeError):  # the loop is closed, and what ran on it has ended
                        loop.call_soon_threadsafe(task.cancel)

                if started is not None:
                    started(cancel)
                _, late = await asyncio.wait({task}, timeout=timeout)
                if late:
                    task.cancel()
                    await asyncio.wait({task})
                    raise StepTimeout(f"still running after {timeout:g} s")
                outcome.set_result(task.result())
            except BaseException as error:
                outcome.set_exception(error)

        loop.call_soon_threadsafe(lambda: loop.create_task(supervised()))
        return outcome.result()

    def stalled(self) -> float:
        """Seconds since the loop last came round; 0 if it isn't running.

        Asks the loop to come round, so the answer tells about the time since the previous question.
        """
        with self._lock:
            loop = self._loop
        if loop is None:
            return 0.0
        seconds = time.monotonic() - self._ticked
        with suppress(RuntimeError):  # closed meanwhile
            loop.call_soon_threadsafe(self._tick)
        return seconds

    def stack(self) -> str:
        """What the loop's thread does just now, as a traceback; empty if it isn't running."""
        with self._lock:
            thread = self._thread
        frames = sys._current_frames()  # noqa: SLF001 - the documented way to another thread's stack
        frame = frames.get(thread.ident or 0) if thread is not None else None
        return "".join(traceback.format_stack(frame)) if frame is not None else ""

    def close(self) -> None:
        """Cancel what still runs and end the thread. Idempotent."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=5)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._ticked = time.monotonic()
                self._thread = threading.Thread(
                    target=self._main, args=(self._loop,), name="gotasks-loop", daemon=True
                )
                self._thread.start()
            return self._loop

    def _main(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            while self._loop is loop:
                try:
                    loop.run_forever()
                    break
                except (KeyboardInterrupt, SystemExit):
                    continue  # a handler's: asyncio keeps it for whoever awaits, but lets it out of here as well
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left, timeout=1))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def _tick(self) -> None:
        self._ticked = time.monotonic()
