"""Show: the whole demo, as `gotasks demo` runs it."""

from __future__ import annotations

import random
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from gotasks.broker import BrokerURL, Capability
from gotasks.demo.accident import Accident
from gotasks.demo.crew import Crew
from gotasks.demo.files import Files, shown, to_text
from gotasks.demo.place import Place, place
from gotasks.demo.plan import Plan
from gotasks.demo.run import Run
from gotasks.demo.screen import Row, Screen
from gotasks.demo.verdict import Verdict
from gotasks.errors import ConfigurationError
from gotasks.fatal import FatalTask

#: Worker processes on a broker that processes can share.
WORKERS = 2

#: Records of finished tasks go after that, in seconds.
_TASK_TTL = 60.0

#: With worker processes the steps are slowed down so that a run takes about this long: there's something to see,
#: and somebody to kill. Seconds.
_SHOW_TIME = 2.0

_GRACE = 10.0


def show(
    path: str | None = None,
    *,
    broker: str | None = None,
    report: str | None = None,
    seed: int | None = None,
    screen: Screen,
) -> bool:
    """Run the demo over the files under `path` (None: this package's own); whether all was as promised.

    Raises ConfigurationError for what can't be used as it stands (path, report, broker), another GotasksError if
    the broker or a worker fails, KeyboardInterrupt; in each case nothing goes on.
    """
    files = Files.under(path)
    with (
        tempfile.TemporaryDirectory(prefix="gotasks-demo-") as folder,
        place(broker, Path(folder), screen) as where,
    ):
        capabilities = where.broker.capabilities
        shared = Capability.SHARED in capabilities
        plan = Plan(
            run=secrets.token_hex(4),
            folder=to_text(folder),
            report=to_text(_fresh(report) if report else Path(folder, "report.jsonl")),
            seed=random.randrange(10_000) if seed is None else seed,
            task_ttl=_TASK_TTL if Capability.RECORDS in capabilities else None,
        )
        if shared:
            pace = _SHOW_TIME * WORKERS * plan.slots / 3 / (len(files.stamps) + 1)
            plan = msgspec.structs.replace(plan, pace=min(max(pace, 0.001), 0.2))
        _introduce(screen, files, plan, where, shared=shared)
        with Run(files, plan, where.broker, screen, cleans=where.file is None) as run:
            victim = None
            if shared:
                victim = _with_processes(run, plan, where.url, screen)
            else:
                with run.app.worker(plan.queue, grace=_GRACE):
                    run.work()
            verdict, fatal = run.judge()
            _explain(screen, verdict, fatal, run)
            screen.table(_rows(run, verdict, fatal, victim))
    return verdict.good


def _with_processes(run: Run, plan: Plan, url: str, screen: Screen) -> int | None:
    """Work by worker processes; returns the pid of the one that was killed."""
    with Crew(plan, url) as crew:
        for _ in range(WORKERS):
            crew.start()
        accident = Accident(crew, run.tally, screen, total=run.total)
        run.work(accident)
    if accident.victim is None:
        screen.say("no worker was killed: everything was done before one was seen at work", "yellow")
    return accident.victim


def _introduce(screen: Screen, files: Files, plan: Plan, where: Place, *, shared: bool) -> None:
    workers = f"{WORKERS} worker processes, one of which is killed" if shared else "a worker in this process"
    screen.say(
        f"{len(files.stamps)} files and one that is gone, each a task of three steps: read → measure → store. "
        f"Store fails at random (seed {plan.seed}). Broker {BrokerURL(where.url)}, {workers}."
    )
    if where.file is not None:
        screen.say(f"the tasks wait in {where.file}, which is removed at the end")
    if shared:
        screen.say(
            f"each step takes {plan.pace * 1000:.0f} ms more than it needs, so that there is something to see"
        )
    if files.left_out:
        screen.say(f"left out, since they can't be read: {_names(files.left_out)}", "yellow")


def _explain(screen: Screen, verdict: Verdict, fatal: Sequence[FatalTask], run: Run) -> None:
    """A line for each thing that isn't as it should be, or that the counts leave out."""
    if verdict.changed:
        screen.say(f"changed by somebody meanwhile, so not compared: {_names(verdict.changed)}", "yellow")
    for problem, paths in (
        ("lost", verdict.lost),
        ("wrong in the report", verdict.wrong),
        ("there more than once", verdict.doubled),
        ("in the fatal queue, though nobody meant it", [each for each in verdict.fatal if each != run.bad]),
    ):
        if paths:
            screen.say(f"{problem}: {_names(paths)}", "bold red")
    if verdict.strange:
        screen.say(f"lines of the report that belong to no file: {verdict.strange}", "bold red")
    for each in fatal:
        if run.tasks.get(each.id) != run.bad:
            screen.say(f"  {shown(run.tasks.get(each.id, each.id))}: {each.failure.error}", "red")


def _rows(run: Run, verdict: Verdict, fatal: Sequence[FatalTask], victim: int | None) -> list[Row]:
    tally = run.tally
    bad = next((each.failure for each in fatal if run.tasks.get(each.id) == run.bad), None)
    lost, doubled = len(verdict.lost) + len(verdict.wrong), len(verdict.doubled) + verdict.strange
    killed = f"tasks that were held by worker {victim}" if victim else ""
    return [
        Row("files", run.total - 1),
        Row("tasks", run.total, "one a file, and the one that is gone"),
        Row("steps", sum(tally.starts.values()), "handler calls"),
        Row("retries", tally.retries, "of store, which fails before or after its write"),
        Row("crashes", tally.crashes, killed),
        Row(
            "fatal",
            len(fatal),
            f"{shown(run.bad)} at {bad.step}: {bad.error.partition(':')[0]}" if bad else "",
            verdict.expected,
        ),
        Row("lost", lost, "all are in the report, with the right checksum", lost == 0),
        Row("doubled", doubled, "and each one once, however often store was run", doubled == 0),
        Row(
            "started twice",
            verdict.twice,
            "steps that aren't reentrant, unless by a person",
            verdict.twice == 0,
        ),
        Row("seconds", round(run.seconds, 3)),
        Row("tasks/s", round(run.total / run.seconds, 1)),
    ]


def _fresh(report: str) -> Path:
    """Make the file for the report. Raises ConfigurationError, also if it's there: nobody's file is written over."""
    path = Path(report).absolute()
    try:
        path.open("xb").close()
    except OSError as error:
        raise ConfigurationError(
            f"the report {to_text(report)!r} can't be made ({error.strerror}): name a new file"
        ) from error
    return path


def _names(paths: Sequence[str]) -> str:
    some = ", ".join(shown(each) for each in paths[:3])
    return some if len(paths) <= 3 else f"{some} and {len(paths) - 3} more"
