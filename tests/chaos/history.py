"""History: what every process of a chaos test did, written outside the broker, and what may never be seen in it.

Each process appends to one file. A line is one write, so lines of several processes don't mix, and SIGKILL takes
none that was written. The checks believe this file and the final records, never what the broker says on the way.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from gotasks import ArgsMap, Job, context
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

    what: (
        str  #: start, end, raised: of a handler. The others are said by `Writer.listen` and `FreezingBroker`
    )
    pid: int
    at: float = 0.0  #: the monotonic clock, which all processes of a machine share
    task: str = ""
    step: int = -1  #: its index in the chain
    count: int = 0  #: of a start and "retried" the failed tries so far, of "crashed" the deaths
    note: str = ""


class Writer:
    """The writing end. Safe from any thread."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, what: str, *, task: str = "", step: int = -1, count: int = 0, note: str = "") -> None:
        """Append one line."""
        entry = Entry(
            what=what, pid=os.getpid(), at=time.monotonic(), task=task, step=step, count=count, note=note
        )
        os.write(self._file, msgspec.json.encode(entry) + b"\n")

    @contextmanager
    def handler(self) -> Iterator[int]:
        """A handler runs inside the `with` block; gives its place in the chain."""
        here = context.current()
        task, step = here.task_id, here.step_index
        self.write("start", task=task, step=step, count=here.tries)
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


@dataclass(frozen=True, kw_only=True)
class End:
    """What the broker says of a task when all is over."""

    status: str  #: of `gotasks.task.Status`; empty where there is no record
    args: Mapping[str, Any] = field(default_factory=dict)
    outcome: str = ""  #: of a task in the fatal queue
    step: str = ""  #: the one where it stopped


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What was enqueued, and how it must end if nothing goes wrong."""

    steps: tuple[str, ...]
    reentrant: tuple[bool, ...]  #: for each step
    args: Mapping[str, Any]  #: the final ones

    @classmethod
    def of(cls, job: Job, args: ArgsMap) -> Expected:
        """For a task with these first args, whose handlers each leave their place in the trail."""
        return cls(
            steps=job.step_names,
            reentrant=tuple(each.retry is not None for each in job.steps),
            args={**args, "trail": list(range(len(job.steps)))},
        )


@dataclass(frozen=True)
class Account:
    """A history, what was enqueued, and how it ended. Each check returns what is wrong, one sentence for each task.

    `resumed`: tasks that a person has resumed by force, and the step from which; it may be started once more.
    """

    entries: Iterable[Entry]
    expected: Mapping[str, Expected]
    ends: Mapping[str, End]
    resumed: Mapping[str, int] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """What all the checks find."""
        checks = (self.lost(), self.doubled(), self.rewound(), self.disordered(), self.misburied())
        return [problem for found in checks for problem in found]

    def lost(self) -> list[str]:
        """Tasks that are neither done with the right args nor in the fatal queue, and tasks that nobody enqueued."""
        found = []
        for task, expected in self.expected.items():
            end = self.ends.get(task, End(status=""))
            if end.status not in ("done", "fatal"):
                found.append(f"lost: {task} is {end.status or 'nowhere'}")
            elif end.status == "done" and end.args != expected.args:
                found.append(f"lost: {task} is done with {end.args}, not {expected.args}")
        strangers = {each.task for each in self._starts()} - self.expected.keys()
        return found + [f"lost: {task} was run, and nobody enqueued it" for task in strangers]

    def doubled(self) -> list[str]:
        """Steps that aren't reentrant and were started more than once."""
        starts = Counter((each.task, each.step) for each in self._starts())
        found = []
        for (task, step), count in starts.items():
            expected = self.expected.get(task)
            allowed = 2 if self.resumed.get(task) == step else 1
            if expected is not None and not expected.reentrant[step] and count > allowed:
                found.append(f"doubled: {task} started {expected.steps[step]} {count} times")
        return found

    def rewound(self) -> list[str]:
        """Steps that were started after a later one was."""
        found = []
        highest: dict[str, int] = {}
        for each in self._starts():
            if each.step < highest.get(each.task, -1):
                found.append(f"rewound: {each.task} started step {each.step} after {highest[each.task]}")
            highest[each.task] = max(each.step, highest.get(each.task, -1))
        return found

    def disordered(self) -> list[str]:
        """Steps that were started before the one before them had ended; tasks that are done without some step."""
        found = []
        ended: dict[str, set[int]] = defaultdict(set)
        for each in self.entries:
            if each.what == "end":
                ended[each.task].add(each.step)
            elif each.what == "start" and each.step > 0 and each.step - 1 not in ended[each.task]:
                found.append(f"disordered: {each.task} started step {each.step} before {each.step - 1} ended")
        for task, end in self.ends.items():
            missing = set(range(len(self.expected[task].steps))) - ended[task]
            if end.status == "done" and missing:
                found.append(f"disordered: {task} is done without steps {sorted(missing)}")
        return found

    def misburied(self) -> list[str]:
        """Tasks in the fatal queue that aren't in doubt, or not at the step that may have been started.

        That is the last one that was started, or the next one if that had ended: its worker went away after the
        checkpoint, or before it had begun with a task.
        """
        last: dict[str, int] = {}
        ended: set[tuple[str, int]] = set()
        for each in self.entries:
            if each.what == "start":
                last[each.task] = max(each.step, last.get(each.task, -1))
            elif each.what == "end":
                ended.add((each.task, each.step))
        found = []
        for task, end in self.ends.items():
            if end.status != "fatal":
                continue
            expected, begun = self.expected[task], last.get(task, -1)
            possible = {begun} if begun >= 0 else set()
            if begun < 0 or (task, begun) in ended:
                possible.add(begun + 1)
            names = {
                name
                for index, name in enumerate(expected.steps)
                if index in possible and not expected.reentrant[index]
            }
            if end.outcome != "in_doubt":
                found.append(f"misburied: {task} lies in the fatal queue, {end.outcome} at {end.step}")
            elif end.step not in names:
                found.append(f"misburied: {task} is in doubt at {end.step}; it can only be at {names}")
        return found

    def _starts(self) -> Iterator[Entry]:
        return (each for each in self.entries if each.what == "start")
