"""Record: when each handler started, written by the workers at the cost of a few memory accesses.

Standard library only: it is imported in the peers' venvs.
"""

from __future__ import annotations

import mmap
import os
import time
from dataclasses import dataclass
from pathlib import Path

_BYTES = 8


@dataclass(frozen=True)
class Start:
    """The first start of one step of one task."""

    at: float  #: of the clock `time.monotonic`, which all processes of the machine share
    process: int  #: its pid


class Record:
    """One cell for each step of each task, in a file that all worker processes map into their memory.

    A cell holds the time of the first start, the pid, and how many starts there were. Threads and processes may mark
    different cells at once; two that mark the same cell at the same instant may count as one.
    """

    def __init__(self, path: Path, cells: int) -> None:
        """Map a file that `create` has made."""
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), cells * 3 * _BYTES)
        self._numbers = memoryview(self._map).cast("d")
        self.cells = cells
        self._started = 0

    @classmethod
    def create(cls, path: Path, cells: int) -> Record:
        """Make the file, all cells empty, and map it."""
        with path.open("wb") as file:
            file.truncate(cells * 3 * _BYTES)
        return cls(path, cells)

    def mark(self, cell: int) -> None:
        """Note a start, now."""
        now, numbers, cells = time.monotonic(), self._numbers, self.cells
        numbers[2 * cells + cell] += 1
        if not numbers[cell]:
            numbers[cells + cell] = os.getpid()
            numbers[cell] = now

    def started(self) -> int:
        """How many cells, from the first on, are marked without a gap. Cheap to ask again and again."""
        while self._started < self.cells and self._numbers[self._started]:
            self._started += 1
        return self._started

    def marked(self) -> int:
        """How many cells are marked, gaps or not."""
        return sum(1 for cell in range(self.cells) if self._numbers[cell])

    def repeats(self) -> int:
        """How many starts were not the first one of their cell."""
        return sum(max(0, int(self._numbers[2 * self.cells + cell]) - 1) for cell in range(self.cells))

    def at(self, cell: int) -> float:
        """When a cell was first marked; 0.0 if it wasn't."""
        return float(self._numbers[cell])

    def starts(self, cells: range | None = None) -> list[Start]:
        """All that were marked, or those of some cells, by time."""
        found = [
            Start(self._numbers[cell], int(self._numbers[self.cells + cell]))
            for cell in cells or range(self.cells)
            if self._numbers[cell]
        ]
        return sorted(found, key=lambda start: start.at)

    def close(self) -> None:
        """Unmap the file."""
        self._numbers.release()
        self._map.close()


def rate(starts: list[Start], processes: int, *, burst: int = 0) -> float:
    """Starts a second, from the first start to the last, of a list by time.

    With several processes the clock begins when the last of them has started something: how long each takes to come
    up is not what is measured. `burst`: starts after that moment which don't count either, since with so many the
    slots were filled, and no task had been done for them. Raises ValueError if fewer than `processes` took part, or
    too few starts are left.
    """
    seen: set[int] = set()
    for number, start in enumerate(starts):
        seen.add(start.process)
        if len(seen) == processes:
            left = starts[number + burst :]
            break
    else:
        raise ValueError(f"{len(seen)} of {processes} worker processes had tasks; raise --tasks")
    if len(left) < 10 or left[-1].at <= left[0].at:
        raise ValueError(f"only {len(left)} tasks were left when all worker processes were up; raise --tasks")
    return (len(left) - 1) / (left[-1].at - left[0].at)
