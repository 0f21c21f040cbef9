"""Running a worker until a signal says stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType

from gotasks.errors import ConfigurationError, GotasksError
from gotasks.worker.worker import Worker

logger = logging.getLogger("gotasks")


def run_until_signal(worker: Worker, stop: threading.Event | None = None) -> None:
    """Start `worker`; on SIGTERM or SIGINT stop it cleanly and return. A second signal ends the process at once.

    `stop`, set by another thread, stops it as well; it doesn't count as a signal.
    Raises ConfigurationError outside the main thread, GotasksError if a part of the worker died of a bug.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigurationError(
            "run() takes the main thread, for its signals; elsewhere use 'with app.worker(…):'"
        )
    signalled = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if signalled.is_set():
            os._exit(128 + number)
        logger.info("%s: stopping; once more to exit at once", signal.Signals(number).name)
        signalled.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with worker:
            while not signalled.wait(1.0 if stop is None else 0.2):
                if stop is not None and stop.is_set():
                    break
                if not worker.healthy:
                    raise GotasksError("a part of the worker has died; its traceback is in the log")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
