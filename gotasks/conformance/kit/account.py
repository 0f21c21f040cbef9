"""Account: a history held against what was enqueued and how it ended, and all that may never be found in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gotasks import ArgsMap, Job
from gotasks.conformance.kit.history import Entry


@dataclass(frozen=True, kw_only=True)
class End:
    """What the broker says of a task when all is over."""

    status: str  #: of `gotasks.task.Status`; empty where there is no trace of it
    args: Mapping[str, Any] | None = None  #: None where the broker doesn't know them any more
    outcome: str = ""  #: of a task in the fatal queue
    step: str = ""  #: the one where it stopped
    copies: int = 1  #: in how many places it is


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
    `unknown`: tasks whose enqueue raised what leaves it open whether it was carried out: they may be there or not.
    """

    entries: Iterable[Entry]
    expected: Mapping[str, Expected]
    ends: Mapping[str, End]
    resumed: Mapping[str, int] = field(default_factory=dict)
    unknown: Collection[str] = ()

    def problems(self) -> list[str]:
        """What all the checks find."""
        checks = (
            self.lost(),
            self.unexpected(),
            self.duplicated(),
            self.doubled(),
            self.rewound(),
            self.strayed(),
            self.disordered(),
            self.misburied(),
        )
        return [problem for found in checks for problem in found]

    def lost(self) -> list[str]:
        """Tasks that are neither done with the right args nor in the fatal queue."""
        found = []
        begun = {each.task for each in self._starts()}
        for task, expected in self.expected.items():
            end = self.ends.get(task, End(status=""))
            if task in self.unknown and task not in begun and not end.status:
                continue
            if end.status not in ("done", "fatal"):
                found.append(f"lost: {task} is {end.status or 'nowhere'}")
            elif end.status == "done" and end.args is not None and end.args != expected.args:
                found.append(f"lost: {task} is done with {end.args}, not {expected.args}")
        return found

    def unexpected(self) -> list[str]:
        """Tasks that nobody enqueued, and that were run or have ended."""
        strangers = dict.fromkeys([*(each.task for each in self._starts()), *self.ends])
        return [
            f"unexpected: {task} is known, and nobody enqueued it"
            for task in strangers
            if task not in self.expected
        ]

    def duplicated(self) -> list[str]:
        """Tasks that are in two places, or have ended twice."""
        found = [
            f"duplicated: {task} is in {end.copies} places"
            for task, end in self.ends.items()
            if end.copies > 1
        ]
        done = Counter(each.task for each in self.entries if each.what == "done")
        return found + [
            f"duplicated: {task} was done {count} times" for task, count in done.items() if count > 1
        ]

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
        """Steps that were started after a later one was, or below a checkpoint that was confirmed."""
        found = []
        highest: dict[str, int] = {}
        confirmed: dict[str, int] = {}
        for each in self.entries:
            if each.what == "confirmed":
                confirmed[each.task] = max(each.step, confirmed.get(each.task, -1))
            elif each.what == "start":
                if each.step < highest.get(each.task, -1):
                    found.append(f"rewound: {each.task} started step {each.step} after {highest[each.task]}")
                elif each.step < confirmed.get(each.task, -1):
                    below = confirmed[each.task]
                    found.append(
                        f"rewound: {each.task} started step {each.step}, and a checkpoint before step {below} was "
                        "confirmed"
                    )
                highest[each.task] = max(each.step, highest.get(each.task, -1))
        return found

    def strayed(self) -> list[str]:
        """Steps that were given other args than the step before had made."""
        return [
            f"strayed: {each.task} started step {each.step} with the args after steps {list(each.trail)}"
            for each in self._starts()
            if each.trail is not None and each.trail != tuple(range(each.step))
        ]

    def disordered(self) -> list[str]:
        """Steps that were started before the one before them had ended; tasks that are done without some step."""
        found = []
        ended: dict[str, set[int]] = defaultdict(set)
        for each in self.entries:
            if each.what == "end":
                ended[each.task].add(each.step)
            elif each.what == "start" and each.step > 0 and each.step - 1 not in ended[each.task]:
                found.append(f"disordered: {each.task} started step {each.step} before {each.step - 1} ended")
        for task, expected in self.expected.items():
            missing = set(range(len(expected.steps))) - ended[task]
            if self.ends.get(task, End(status="")).status == "done" and missing:
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
        for task, expected in self.expected.items():
            end = self.ends.get(task, End(status=""))
            if end.status != "fatal":
                continue
            begun = last.get(task, -1)
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
