"""Run: the tasks of one run of the demo, from the first enqueue until the broker is as it was before."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING

from gotasks.broker import Broker
from gotasks.demo.accident import Accident
from gotasks.demo.chain import JOB, LEASE, Chain, make_app
from gotasks.demo.files import Files, to_path, to_text
from gotasks.demo.journal import Tally
from gotasks.demo.plan import Plan
from gotasks.demo.report import read
from gotasks.demo.screen import Screen
from gotasks.demo.verdict import Verdict, judge, started_twice
from gotasks.errors import GotasksError
from gotasks.fatal import FatalTask

if TYPE_CHECKING:
    from typing_extensions import Self

#: If nothing at all moves for so long, the demo stops waiting and counts what there is. Seconds.
_PATIENCE = 30.0

#: How often the journal is read, and how often the broker is asked, in seconds.
_POLL = 0.005
_LOOK = 0.1

#: Tasks in one call of `enqueue_many`.
_BATCH = 500


class Run:
    """Enqueues, watches, resumes and judges; the workers are somebody else's. Leave it to clean up the broker."""

    def __init__(
        self, files: Files, plan: Plan, broker: Broker, screen: Screen, *, cleans: bool = True
    ) -> None:
        """`cleans`: whether others use the broker too, so that nothing of this run may be left on it."""
        self._files = files
        self._plan = plan
        self._screen = screen
        self._cleans = cleans
        self._chain = Chain(plan)
        self.app = make_app(plan, self._chain, broker)
        self.tally = Tally(plan.journal)
        self.bad = to_text(plan.path("gone.txt"))  #: listed, but there's no such file
        self.tasks: dict[str, str] = {}  #: id → path
        self.total = len(files.stamps) + 1
        self.seconds = 0.0
        self._doubts: set[str] = set()
        self._resumed: Counter[tuple[str, str]] = Counter()
        self._moved = self._looked = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if self._cleans:
                self._clean()
        except GotasksError as error:
            if self.tasks:  # else the broker was never there, and that is said already
                self._screen.say(f"the broker couldn't be cleaned up: {error}", "yellow")
        finally:
            self.app.close()
            self.tally.close()
            self._chain.close()

    def work(self, accident: Accident | None = None) -> None:
        """Enqueue everything, then watch until every task is settled."""
        start = self._moved = time.monotonic()
        with self._screen.progress(self.total) as show:
            paths = chain(self._files.stamps, [self.bad])
            while part := list(islice(paths, _BATCH)):
                handles = self.app.queue(self._plan.queue).enqueue_many(
                    JOB, [{"path": path} for path in part]
                )
                self.tasks.update(zip((each.id for each in handles), part, strict=True))
            while not self._over(accident):
                show(len(self.tally.settled))
                time.sleep(_POLL)
            self.seconds = time.monotonic() - start
            show(len(self.tally.settled))
        again = self.tally.crashed - self._doubts
        if again:
            self._screen.say(
                f"{_tasks(len(again))} came back at store, which is reentrant: run again", "yellow"
            )

    def judge(self) -> tuple[Verdict, list[FatalTask]]:
        """What became of every file, and what lies in the fatal queue. Once the workers have stopped."""
        self.tally.update()
        fatal = self.app.fatal.list(limit=self.total)
        verdict = judge(self._files.stamps, self.bad, self.tasks, read(to_path(self._plan.report)), fatal)
        return replace(verdict, twice=started_twice(self.tally.starts, self._resumed)), fatal

    # -- watching ---------------------------------------------------------------------------------

    def _over(self, accident: Accident | None) -> bool:
        now = time.monotonic()
        if self.tally.update():
            self._moved = now
        if accident is not None:
            accident.look()
        if now < self._looked + _LOOK and len(self.tally.settled) < self.total:
            return False
        self._looked = now
        quiet = now - self._moved
        if self._at_rest(quiet):
            fatal = self.app.fatal.list(limit=self.total)
            if doubts := [each for each in fatal if each.failure.in_doubt]:
                self._resume(doubts)
                self._moved = now
                return False
            if self._known({each.id for each in fatal}):
                return True
        if quiet < _PATIENCE or any(self.tally.running.values()):
            return False
        self._screen.say(f"nothing has moved for {_PATIENCE:.0f} s: counting what there is", "red")
        return True

    def _at_rest(self, quiet: float) -> bool:
        """Whether the queue is empty, as far as the broker can say, and the journal doesn't contradict."""
        # A worker that is killed right after a write doesn't get it into the journal, so silence counts as well.
        if not self._known(self.tally.buried) and quiet < 1.0:
            return False
        stats = self.app.stats(self._plan.queue)
        return not (stats.ready or stats.scheduled or stats.leased)

    def _known(self, fatal: Collection[str]) -> bool:
        return self.tasks.keys() <= self._chain.report.tasks() | set(fatal)

    def _resume(self, doubts: Collection[FatalTask]) -> None:
        """What a person does about tasks in doubt: look what the step does, then say that it may be started again."""
        begun = sum(bool(self.tally.starts[each.id, each.failure.step]) for each in doubts)
        self._screen.say(
            f"{_tasks(len(doubts))} came back at read or measure, which aren't reentrant ({begun} had begun): "
            "in doubt, so nobody starts them again by himself. Both steps only read, so a person may: "
            "app.fatal.retry(id, force=True)",
            "yellow",
        )
        for each in doubts:
            self._doubts.add(each.id)
            self._resumed[each.id, each.failure.step] += 1
            self.tally.reopen(each.id)
            self.app.fatal.retry(each.id, force=True)

    # -- afterwards -------------------------------------------------------------------------------

    def _clean(self) -> None:
        """Leave nothing of this run on the broker but records that expire."""
        for queue in (self._plan.queue, self._plan.fatal_queue):
            self.app.dispatch.empty(queue, lease=LEASE)


def _tasks(count: int) -> str:
    return f"{count} task{'' if count == 1 else 's'}"
