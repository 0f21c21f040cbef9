"""Crew: worker processes for the tests of networks and servers, and the account of what they did."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gotasks import App
from gotasks.conformance.kit.account import Account, End, Expected
from gotasks.conformance.kit.ends import at_rest, ends
from gotasks.conformance.kit.history import Reader
from gotasks.conformance.kit.process import Process, environment, until
from tests.chaos import netjobs

if TYPE_CHECKING:
    from typing_extensions import Self


class Crew:
    """`count` processes of `gotasks worker` that serve `netjobs` on one broker. None outlives the `with` block.

    `history` is what their handlers wrote. Leaving the block without an error stops them by SIGTERM, and each has to
    end with code 0: whatever the test did to their server, it must not have cost a worker its clean stop.
    """

    def __init__(
        self, directory: Path, url: str, *, count: int = 2, limit: int = 10, lease: float = 10.0
    ) -> None:
        self.history = Reader(directory / "history")
        self.processes: list[Process] = []
        self._directory = directory
        self._count = count
        self._environment = environment(url, **{netjobs.HISTORY: str(directory / "history")})
        self._command = [sys.executable, "-m", "gotasks", "worker", f"{netjobs.__name__}:app"]
        self._command += ["-q", f"{netjobs.QUEUE}:{limit}", f"--lease={lease}"]

    def __enter__(self) -> Self:
        for number in range(self._count):
            log = self._directory / f"worker-{number}.log"
            self.processes.append(Process(self._command, self._environment, self._directory, log))
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            if kind is None:
                for process in self.processes:
                    process.signal(signal.SIGTERM)
                codes = [process.wait() for process in self.processes]
                assert codes == [0] * len(codes), self.output
        finally:
            for process in self.processes:
                process.close()
            self.history.update().close()

    @property
    def output(self) -> str:
        """All that they have said."""
        return "\n".join(process.output for process in self.processes)

    @property
    def lines(self) -> list[int]:
        """How many lines each has said."""
        return [process.output.count("\n") for process in self.processes]

    def working(self) -> bool:
        """Whether each of them has started a handler."""
        begun = {entry.pid for entry in self.history.update().entries if entry.what == "start"}
        return begun >= {process.pid for process in self.processes}

    def running_at(self, moment: float) -> int:
        """How many handlers ran at this moment (monotonic)."""
        entries = [each for each in self.history.update().entries if each.at <= moment]
        return sum(each.what == "start" for each in entries) - sum(
            each.what in ("end", "raised") for each in entries
        )

    def done(self) -> int:
        """How many handlers have returned."""
        return sum(each.what == "end" for each in self.history.update().entries)


class Verdict:
    """What became of the tasks, when all is over and the crew is still there.

    `expected` are those whose enqueue returned, `unknown` those whose enqueue raised BrokerUnavailable: they may be
    there or not. A task is *received* once a handler of it was started. One that is in doubt and was never started
    is one whose `acquire` was carried out and whose reply was lost on the way.
    """

    def __init__(
        self,
        app: App,
        history: Reader,
        expected: Mapping[str, Expected],
        unknown: Mapping[str, Expected] | None = None,
    ) -> None:
        maybe = unknown or {}
        known = {**expected, **maybe}
        found = ends(app, history, known, known, [netjobs.QUEUE])
        starts = Counter((each.task, each.step) for each in history.update().entries if each.what == "start")
        received = {task for task, _ in starts}
        stored = {task: each for task, each in maybe.items() if found[task].status or task in received}
        self.ends: dict[str, End] = {
            task: end for task, end in found.items() if task not in maybe or task in stored
        }
        self.account = Account(history.entries, {**expected, **stored}, self.ends)
        self.done = sum(end.status == "done" for end in self.ends.values())
        doubted = {task for task, end in self.ends.items() if end.status == "fatal"}
        #: in doubt though a worker had them: must be empty while the lease outlasts the fault
        self.doubted = sorted(doubted & received)
        #: in doubt, and nobody ever had them: their acquire reply was lost
        self.reply_lost = sorted(doubted - received)
        #: started more than once, reentrant or not
        self.twice = sorted(
            f"{task} step {step}: {count} times" for (task, step), count in starts.items() if count > 1
        )
        self._unknown = len(maybe), len(stored)

    def __str__(self) -> str:
        unknown, stored = self._unknown
        return (
            f"{len(self.ends)} tasks: {self.done} done, lost {len(self.account.lost())}, "
            f"started twice {len(self.twice)}, received and in doubt {len(self.doubted)}, "
            f"acquire reply lost and in doubt {len(self.reply_lost)}; "
            f"enqueues of unknown outcome {unknown}, of which stored {stored}"
        )

    def check(self) -> None:
        """Nothing lost, nothing started twice, and only those in doubt whose acquire reply was lost."""
        problems = self.account.problems()
        assert not problems, "\n".join(problems[:20])
        assert self.twice == []
        assert self.doubted == []


def settled(app: App, *, timeout: float) -> None:
    """Return once the queue is empty: nothing is ready, scheduled or held."""
    until(lambda: at_rest(app, netjobs.QUEUE), "a queue at rest", timeout=timeout, pause=0.05)
