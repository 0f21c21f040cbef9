"""Running a worker until a signal says stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
from queue import Empty, SimpleQueue
from types import FrameType

from gotasks.errors import ConfigurationError, GotasksError
from gotasks.worker.worker import Worker

logger = logging.getLogger("gotasks")


def run_until_signal(worker: Worker, orders: SimpleQueue[None] | None = None) -> bool:
    """Start `worker`; on SIGTERM or SIGINT stop it cleanly and return. A second signal ends the process at once.

    What is put into `orders` by another thread stops it as well, and doesn't count as a signal. Returns whether every
    handler ended within the grace time. Raises ConfigurationError outside the main thread, GotasksError if a part of
    the worker died of a bug.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigurationError(
            "run() takes the main thread, for its signals; elsewhere use 'with app.worker(…):'"
        )
    # A SimpleQueue, since a signal handler may put into it whatever the main thread is doing with it.
    woken: SimpleQueue[None] = SimpleQueue() if orders is None else orders
    received: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        woken.put(None)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        worker.start()
        logger.info("worker started")
        try:
            while not _woken(woken, within=1.0):
                if not worker.healthy:
                    raise GotasksError("a part of the worker has died; its traceback is in the log")
            for number in received:
                logger.info("%s: stopping; once more to exit at once", signal.Signals(number).name)
        finally:
            in_time = worker.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return in_time


def _woken(woken: SimpleQueue[None], within: float) -> bool:
    try:
        woken.get(timeout=within)
    except Empty:
        return False
    return True
