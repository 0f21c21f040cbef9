"""Functions: how many calls of the project's own functions something takes, on all threads that it starts."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import gotasks

if TYPE_CHECKING:
    from typing_extensions import Self

_FOLDER = f"{Path(gotasks.__file__).parent}/"

#: Not counted: the broker in memory is there for tests, and what goes by the clock is no matter of tasks.
_OTHERS = tuple(f"{_FOLDER}{name}" for name in ("memory.py", "worker/heart.py", "worker/gauge.py"))


class Functions:
    """Counts within its `with` block: on this thread, and on those that begin in it.

    Calls and not seconds, since these are the same on every machine. Newer versions of Python have some fewer.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    @property
    def calls(self) -> int:
        """All so far."""
        return sum(self._counts.values())

    def __enter__(self) -> Self:
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_exc: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            file = frame.f_code.co_filename
            if file.startswith(_FOLDER) and not file.startswith(_OTHERS):
                thread = threading.get_ident()  # of which each has a count of its own, so that none is lost
                self._counts[thread] = self._counts.get(thread, 0) + 1
