"""Drain: all that is due, run in the calling thread. For tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from gotasks.errors import TaskFailed
from gotasks.events import Event, TaskBuried
from gotasks.loop import LoopThread
from gotasks.run import Answer, Commit, Run
from gotasks.run_settings import RunSettings
from gotasks.runner import Runner
from gotasks.settings import QueueOptions
from gotasks.settler import Commits, Settler
from gotasks.worker.commits import DirectCommits, UnfencedCommits

if TYPE_CHECKING:
    from gotasks.app import App


def drain(app: App, queues: Mapping[str, QueueOptions], *, raises: bool) -> int:
    """See `App.drain`."""
    buried: list[TaskBuried] = []
    here = threading.get_ident()

    def listen(event: Event) -> None:
        if isinstance(event, TaskBuried) and threading.get_ident() == here:
            buried.append(event)

    loop = LoopThread()
    app.events.listen(listen)
    try:
        longest = app.dispatch.limits.max_lease
        if longest is not None:  # a worker refuses to start; a test with a lesser broker shall run
            queues = {name: replace(each, lease=min(each.lease, longest)) for name, each in queues.items()}
        runners = {name: _runner(app, options, loop) for name, options in queues.items()}
        count = 0
        while ran := sum(_run_one(app, name, queues[name].lease, runner) for name, runner in runners.items()):
            count += ran
    finally:
        app.events.unlisten(listen)
        loop.close()
    if buried and raises:
        first = buried[0]
        raise TaskFailed(first.task_id, first.step or None, first.error)
    return count


def _run_one(app: App, queue: str, lease: float, runner: Runner) -> int:
    for taken in app.dispatch.broker.acquire(queue, limit=1, wait=0, lease_for=lease):
        runner.run_chain(Run(taken))
        return 1
    return 0


def _runner(app: App, options: QueueOptions, loop: LoopThread) -> Runner:
    dispatch = app.dispatch

    def settled(commit: Commit, answer: Answer) -> None:
        settler.settled(commit, answer)

    def renew(run: Run) -> bool:
        sent = time.monotonic()
        lost = dispatch.repeat("extend", lambda: dispatch.broker.extend([run.lease], lease_for=options.lease))
        run.deadline = max(run.deadline, sent + options.lease)
        return not lost

    def forget(_: Run) -> None:
        """No lease is kept between two steps: `renew` does, before each."""

    settings = RunSettings.of(app, options)
    commits: Commits = DirectCommits(dispatch, settled)
    if settings.ack_first:
        commits = UnfencedCommits(commits, dispatch, app.events, settled)
    settler = Settler(settings, commits, app.events, forget=forget)
    return Runner(
        settings,
        settler,
        commits,
        events=app.events,
        loop=loop,
        renew=renew,
        forget=forget,
        stopping=threading.Event(),
    )
