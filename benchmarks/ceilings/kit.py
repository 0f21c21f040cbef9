"""How a loop is measured."""

from __future__ import annotations

import time
from collections.abc import Callable

#: A stored task of usual size.
BODY = b"x" * 300


def per_second(loop: Callable[[], int]) -> float:
    """What `loop` says that it did, a second."""
    began = time.perf_counter()
    done = loop()
    return done / (time.perf_counter() - began)
