"""History: what every process of a storm did, written outside the broker, and what may never be seen in it.

Each process appends to one file. A line is one write, so lines of several processes don't mix, and SIGKILL takes
none that was written. The checks (`account`) believe this file and the final records, never what the broker says on
the way.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from gotasks import context
from gotasks.events import (
    Event,
    LeaseLost,
    StepRetried,
    TaskBuried,
    TaskCrashed,
    TaskReleased,
    TaskSucceeded,
)


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line."""

    what: str  #: start, end, raised: of a handler. The others are said by `Writer.listen` and `PointedBroker`
    pid: int
    at: float = 0.0  #: the monotonic clock, which all processes of a machine share
    task: str = ""
    step: int = -1  #: its index in the chain
    count: int = 0  #: of a start and "retried" the failed tries so far, of "crashed" the deaths
    note: str = ""
    trail: tuple[int, ...] | None = None  #: of a start: the steps that have left their place in its args map


class Writer:
    """The writing end. Safe from any thread."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(
        self,
        what: str,
        *,
        task: str = "",
        step: int = -1,
        count: int = 0,
        note: str = "",
        trail: Sequence[int] | None = None,
    ) -> None:
        """Append one line."""
        entry = Entry(
            what=what,
            pid=os.getpid(),
            at=time.monotonic(),
            task=task,
            step=step,
            count=count,
            note=note,
            trail=None if trail is None else tuple(trail),
        )
        os.write(self._file, msgspec.json.encode(entry) + b"\n")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    @contextmanager
    def handler(self, trail: Sequence[int] | None = None) -> Iterator[int]:
        """A handler runs inside the `with` block; gives its place in the chain. `trail`: what its args map says."""
        here = context.current()
        task, step = here.task_id, here.step_index
        self.write("start", task=task, step=step, count=here.tries, trail=trail)
        try:
            yield step
        except BaseException:
            self.write("raised", task=task, step=step)
            raise
        self.write("end", task=task, step=step)

    def listen(self, event: Event) -> None:
        """Write the facts that tests ask for; a listener for `app.events`."""
        if isinstance(event, LeaseLost):
            self.write("lost", task=event.task_id)
        elif isinstance(event, TaskReleased):
            self.write("released", task=event.task_id, note=event.why)
        elif isinstance(event, TaskBuried):
            self.write("buried", task=event.task_id, note=event.outcome)
        elif isinstance(event, TaskCrashed):
            self.write("crashed", task=event.task_id, count=event.deaths)
        elif isinstance(event, StepRetried):
            self.write("retried", task=event.task_id, count=event.tries)
        elif isinstance(event, TaskSucceeded):
            self.write("done", task=event.task_id)


class Reader:
    """The reading end, which may follow a file that grows."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self._file = path.open("rb")
        self._rest = b""
        self._decoder = msgspec.json.Decoder(Entry)
        self._running: dict[int, set[tuple[str, int]]] = defaultdict(set)
        self._begun: set[int] = set()
        self.entries: list[Entry] = []  #: all that `update` has read

    def update(self) -> Reader:
        """Read what is new."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            entry = self._decoder.decode(line)
            self.entries.append(entry)
            if entry.what == "start":
                self._begun.add(entry.pid)
                self._running[entry.pid].add((entry.task, entry.step))
            elif entry.what in ("end", "raised"):
                self._running[entry.pid].discard((entry.task, entry.step))
        return self

    def running(self, pid: int) -> Collection[tuple[str, int]]:
        """Tasks and steps whose handlers this process has started and not ended: so it holds their leases."""
        return self._running[pid]

    def consumes(self, pid: int) -> bool:
        """Whether this process has started a handler."""
        return pid in self._begun

    def find(
        self, what: str, *, task: str | None = None, pid: int | None = None, note: str | None = None
    ) -> list[Entry]:
        """The entries of this kind, in the order in which they were written."""
        return [
            each
            for each in self.entries
            if each.what == what
            and (task is None or each.task == task)
            and (pid is None or each.pid == pid)
            and (note is None or each.note == note)
        ]

    def steps(self, task: str, *, pid: int | None = None) -> list[int]:
        """The steps of this task that were started (there), in that order."""
        return [each.step for each in self.find("start", task=task, pid=pid)]

    def close(self) -> None:
        self._file.close()
