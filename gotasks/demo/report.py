"""Report: the demo's result, one line of JSON for each file. Storing a line again changes nothing.

That is what makes the last step safe to run again: after an exception, after a crash, and even while the first
try still runs somewhere.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import msgspec


class Line(msgspec.Struct, frozen=True):
    """What the chain found out about one file."""

    task: str
    path: str
    kind: str
    words: int
    lines: int
    checksum: str


class Report:
    """The file, shared by all workers. Safe from any thread and any process."""

    def __init__(self, path: Path) -> None:
        """Creates it if it isn't there. Raises OSError."""
        self._file = path.open("a+b", buffering=0)
        self._lock = threading.Lock()
        self._read = 0  # up to here its lines are known
        self._tasks: set[str] = set()

    def store(self, line: Line) -> bool:
        """Append `line`, unless one of this task is there. Returns whether it was appended."""
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                self._catch_up()
                if line.task in self._tasks:
                    return False
                # What a killed worker began to write is no line: nobody was told that it's there.
                if os.fstat(self._file.fileno()).st_size > self._read:
                    os.ftruncate(self._file.fileno(), self._read)
                text = msgspec.json.encode(line) + b"\n"
                if self._file.write(text) != len(text):
                    raise OSError("only a part of the line was written: is the disk full?")
                return True
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def tasks(self) -> set[str]:
        """The tasks that have a line."""
        with self._lock:
            self._catch_up()
            return set(self._tasks)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _catch_up(self) -> None:
        self._file.seek(self._read)
        new, _, _ = self._file.read().rpartition(b"\n")
        for text in new.split(b"\n") if new else ():
            self._tasks.add(msgspec.json.decode(text, type=Line).task)
        self._read += len(new) + 1 if new else 0


def read(path: Path) -> list[Line | None]:
    """All lines of a report; None for one that can't be read. Raises OSError."""
    found: list[Line | None] = []
    with path.open("rb") as file:
        for text in file:
            try:
                found.append(msgspec.json.decode(text, type=Line))
            except msgspec.MsgspecError:
                found.append(None)
    return found
