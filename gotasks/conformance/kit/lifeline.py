"""Lifeline: a worker process of the suite ends with it, however that ends: its stdin is a pipe from it."""

from __future__ import annotations

import os
import threading

#: The environment variable that tells a worker to hold on to its stdin.
VARIABLE = "GOTASKS_CONFORMANCE_LIFELINE"


def hold() -> None:
    """End this process when its stdin ends, if it was told to."""
    if os.environ.pop(VARIABLE, None):  # not for its children, whose stdin is another
        threading.Thread(target=_end_with_the_test, name="lifeline", daemon=True).start()


def _end_with_the_test() -> None:
    while os.read(0, 1):
        pass
    os._exit(70)
