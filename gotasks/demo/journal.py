"""Journal: what happened, written outside the broker, so that the demo need not believe the broker about itself.

Every process of a run appends to one file. A line is one small write, so lines don't mix, and SIGKILL takes none
that was written.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from gotasks.events import Event, StepRetried, TaskBuried, TaskCrashed, TaskSucceeded

_EVENTS: dict[type[Event], str] = {
    StepRetried: "retried",
    TaskBuried: "buried",
    TaskCrashed: "crashed",
    TaskSucceeded: "succeeded",
}


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One line."""

    what: str  #: "begin" and "end" of a handler, or a value of _EVENTS
    pid: int
    task_id: str
    step: str = ""


class Journal:
    """The writing end. Safe from any thread."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, what: str, task_id: str, step: str = "") -> None:
        """Append one line."""
        os.write(self._file, msgspec.json.encode(Entry(what, os.getpid(), task_id, step)) + b"\n")

    @contextmanager
    def step(self, task_id: str, step: str) -> Iterator[None]:
        """A handler runs inside the `with` block."""
        self.write("begin", task_id, step)
        try:
            yield
        finally:
            self.write("end", task_id, step)

    def listen(self, event: Event) -> None:
        """Write the facts that the demo counts; a listener for `app.events`."""
        what = _EVENTS.get(type(event))
        if what is not None:
            self.write(what, getattr(event, "task_id", ""), getattr(event, "step", ""))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Tally:
    """The reading end: counts what the journal says."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._rest = b""
        self.entries = 0
        self.retries = 0
        self.crashes = 0
        self.starts: Counter[tuple[str, str]] = Counter()  #: of handlers, by task and step
        self.crashed: set[str] = set()  #: tasks that came back from a worker that went away
        self.buried: set[str] = set()
        self.settled: set[str] = set()  #: tasks that have ended or were buried
        self.running: dict[int, dict[str, str]] = defaultdict(
            dict
        )  #: pid → task → the step whose handler runs

    def update(self) -> bool:
        """Read what is new; whether there was any."""
        before = self.entries
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            self._count(msgspec.json.decode(line, type=Entry))
        return self.entries > before

    def reopen(self, task_id: str) -> None:
        """A person has resumed this task."""
        self.buried.discard(task_id)
        self.settled.discard(task_id)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _count(self, entry: Entry) -> None:
        self.entries += 1
        if entry.what == "begin":
            self.starts[entry.task_id, entry.step] += 1
            self.running[entry.pid][entry.task_id] = entry.step
        elif entry.what == "end":
            self.running[entry.pid].pop(entry.task_id, None)
        elif entry.what == "retried":
            self.retries += 1
        elif entry.what == "crashed":
            self.crashes += 1
            self.crashed.add(entry.task_id)
        else:
            self.settled.add(entry.task_id)
            if entry.what == "buried":
                self.buried.add(entry.task_id)
