"""Verdict: what became of every file, checked against the files themselves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gotasks.demo.chain import PLAIN
from gotasks.demo.files import Stamp, to_path
from gotasks.demo.measure import Measure
from gotasks.demo.report import Line
from gotasks.fatal import FatalTask


@dataclass(frozen=True)
class Verdict:
    """Paths are text as `files.to_text` makes it."""

    lost: list[str] = field(default_factory=list)  #: neither in the report nor in the fatal queue
    wrong: list[str] = field(default_factory=list)  #: in the report, but not with what the file holds
    doubled: list[str] = field(default_factory=list)  #: in the report more than once, or there and in fatal
    changed: list[str] = field(
        default_factory=list
    )  #: written to by somebody meanwhile, so it can't be compared
    strange: int = 0  #: lines of the report that belong to no file
    fatal: list[str] = field(default_factory=list)
    expected: bool = False  #: the fatal ones are exactly the one that was to fail
    twice: int = 0  #: starts of plain steps beyond the first that nobody had asked for

    @property
    def good(self) -> bool:
        """All is as it was promised."""
        return self.expected and not (self.lost or self.wrong or self.doubled or self.strange or self.twice)


def judge(
    stamps: Mapping[str, Stamp],
    bad: str,
    tasks: Mapping[str, str],
    report: Iterable[Line | None],
    fatal: Iterable[FatalTask],
) -> Verdict:
    """Compare what came out with what went in; reads every file again.

    Args:
        stamps: the files as they were at the start.
        bad: the one that had to fail; not among `stamps`.
        tasks: task id → path.
        report: the lines of the report.
        fatal: what lies in the fatal queue.
    """
    lines: defaultdict[str, list[Line]] = defaultdict(list)
    strange = 0
    for line in report:
        if line is None or line.path not in stamps or tasks.get(line.task) != line.path:
            strange += 1
        else:
            lines[line.path].append(line)
    buried = Counter(tasks.get(each.id, each.id) for each in fatal)
    verdict = Verdict(strange=strange, fatal=sorted(buried.elements()), expected=buried == {bad: 1})
    for path, stamp in stamps.items():
        found = len(lines[path]) + buried[path]
        if found == 0:
            verdict.lost.append(path)
        elif found > 1:
            verdict.doubled.append(path)
        for line in lines[path]:
            if not _right(line):
                changed = not _same(path, stamp)
                (verdict.changed if changed else verdict.wrong).append(path)
    return verdict


def started_twice(starts: Mapping[tuple[str, str], int], resumed: Mapping[tuple[str, str], int]) -> int:
    """How often a plain step was started although nobody had asked for it.

    `starts`, `resumed`: by task and step, how often its handler began, and how often a person resumed it there.
    """
    return sum(max(0, count - 1 - resumed.get(key, 0)) for key, count in starts.items() if key[1] in PLAIN)


def _right(line: Line) -> bool:
    try:
        found = Measure.of(to_path(line.path))
    except OSError:
        return False
    return found == Measure(line.words, line.lines, line.checksum)


def _same(path: str, stamp: Stamp) -> bool:
    try:
        return Stamp.of(to_path(path)) == stamp
    except OSError:
        return False
