"""Forks: no process is forked while one of its threads is inside a database's library.

Such a library has locks of its own (SQLite's are in C). A child that is born while another thread holds one finds
it held for ever. So a fork waits until the calls that are under way have ended, and new ones wait for the fork.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: A fork waits so long at the most: a server that doesn't answer must not stop it. Seconds.
_PATIENCE = 1.0


class _Gate:
    """Any number of calls inside, or a fork."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._forks = 0

    def enter(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._forks == 0)
            self._inside += 1

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def shut(self) -> None:
        with self._changed:
            self._forks += 1
            self._changed.wait_for(lambda: self._inside == 0, _PATIENCE)

    def open(self) -> None:
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()


_gate = _Gate()


@contextmanager
def held_off() -> Iterator[None]:
    """Within the block no thread of this process forks."""
    gate = _gate
    gate.enter()
    try:
        yield
    finally:
        gate.leave()


def _in_child() -> None:
    global _gate  # noqa: PLW0603 - there is one per process, and this is another process
    _gate = _Gate()


os.register_at_fork(
    before=lambda: _gate.shut(), after_in_parent=lambda: _gate.open(), after_in_child=_in_child
)
