"""Chain: the demo's job, three handlers."""

from __future__ import annotations

import random
import time

from gotasks import context
from gotasks.app import App
from gotasks.args import ArgsMap
from gotasks.broker import Broker
from gotasks.demo.files import to_path
from gotasks.demo.journal import Journal
from gotasks.demo.measure import Measure, kind
from gotasks.demo.plan import Plan
from gotasks.demo.report import Line, Report
from gotasks.job import reentrant, step

JOB = "count-file"

#: Steps that are never started twice, by the framework alone.
PLAIN = ("read", "measure")

#: Short, so that what a killed worker held is soon offered again. Seconds.
LEASE = 2.0


class Hiccup(Exception):
    """The store step, made to fail."""


class Chain:
    """read → measure → store. The args map carries where the file is, and never what is in it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.journal = Journal(plan.journal)
        self.report = Report(to_path(plan.report))

    def read(self, args: ArgsMap) -> ArgsMap:
        """Adds `kind`. Raises OSError for a file that can't be read, which sends the task to the fatal queue."""
        with self.journal.step(context.current().task_id, "read"):
            time.sleep(self._plan.pace)
            return {**args, "kind": kind(to_path(args["path"]))}

    def measure(self, args: ArgsMap) -> ArgsMap:
        """Adds `words`, `lines` and `checksum`."""
        me = context.current()
        with self.journal.step(me.task_id, "measure"):
            time.sleep(self._plan.pace)
            found = Measure.of(to_path(args["path"]), unwanted=lambda: me.revoked)
            return {**args, "words": found.words, "lines": found.lines, "checksum": found.checksum}

    def store(self, args: ArgsMap) -> None:
        """Writes the line of this file into the report. Fails at random, before or after that."""
        me = context.current()
        with self.journal.step(me.task_id, "store"):
            time.sleep(self._plan.pace)
            trouble = dict(enumerate(hiccups(self._plan.seed, args["path"]))).get(me.tries)
            if trouble == "before":
                raise Hiccup("made to fail before the line was written")
            self.report.store(Line(task=me.task_id, **args))
            if trouble == "after":
                raise Hiccup("made to fail after the line was written")

    def close(self) -> None:
        """Close journal and report."""
        self.journal.close()
        self.report.close()


def hiccups(seed: int, path: str) -> list[str]:
    """How the first tries of storing a file fail: the same for the same seed, and fewer than there are retries."""
    dice = random.Random(f"{seed} {path}")
    return [dice.choice(("before", "after")) for _ in range(dice.choice((0, 0, 0, 0, 0, 0, 0, 1, 1, 2)))]


def make_app(plan: Plan, chain: Chain, broker: Broker | None = None) -> App:
    """The app of one run, for the demo and for its worker processes. `broker`: None takes GOTASKS_BROKER_URL."""
    app = App(broker, task_ttl=plan.task_ttl, fatal_queue=plan.fatal_queue)
    app.register(
        JOB,
        step(chain.read, name="read"),
        step(chain.measure, name="measure"),
        step(reentrant(chain.store, max_times=3, sleepy_ms=10), name="store"),
    )
    app.queue(plan.queue, max_limit=plan.slots, lease=LEASE)
    app.events.listen(chain.journal.listen)
    return app
