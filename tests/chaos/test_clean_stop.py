"""SIGTERM: no step follows, what runs ends, the chains go on elsewhere, and nothing counts as a crash (G9)."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gotasks import App
from gotasks.broker import Write
from gotasks.job import Job
from tests.chaos.ends import at_rest, ends
from tests.chaos.history import Account, Expected, Reader
from tests.chaos.processes import Fleet, Process, until

QUEUE = "chaos"
LEASE = 1.0

#: What a stop takes apart from the running handlers: to notice the signal, the last writes, the end
#: of the interpreter, on a machine that does other things too. Seconds.
SLACK = 1.0


def enqueue(app: App, name: str, count: int = 1, **args: Any) -> dict[str, Expected]:
    """Tasks of one job, and how they must end."""
    job: Job = app.jobs[name]
    maps = [{"trail": [], "n": number, **args} for number in range(count)]
    handles = app.queue(QUEUE).enqueue_many(job, maps)
    return {handle.id: Expected.of(job, each) for handle, each in zip(handles, maps, strict=True)}


def problems(app: App, history: Reader, expected: dict[str, Expected]) -> list[str]:
    entries = [each for each in history.update().entries if each.task in expected]
    return Account(entries, expected, ends(app, expected)).problems()


def test_long_chains_go_on_elsewhere(
    app: App, fleet: Fleet, history: Reader, figures: Callable[[str], None]
) -> None:
    first = fleet.start(QUEUE, limit=8)
    tasks = enqueue(app, "long", 6)
    until(
        lambda: all(len(history.update().steps(task)) > 3 for task in tasks), "all chains are at the 4th step"
    )
    other = fleet.start(QUEUE, limit=8)
    other.started()
    moment = first.signal(signal.SIGTERM)
    code = first.wait()
    took = time.monotonic() - moment
    history.update()
    here = {task: history.steps(task, pid=first.pid) for task in tasks}
    late = max(each.at for each in history.find("start", pid=first.pid)) - moment
    figures(
        f"stopped {took:.2f} s after SIGTERM in chains of {sum(map(len, here.values()))} of 120 steps, the last "
        f"of them started {late:+.3f} s after it"
    )
    assert code == 0, first.output
    assert took < 0.1 + SLACK
    assert late < SLACK / 2
    assert all(3 < len(steps) < 20 for steps in here.values())
    for task in tasks:
        assert history.find("released", task=task, pid=first.pid, note="stop")

    until(lambda: at_rest(app, QUEUE), "the chains have ended")
    assert problems(app, history, tasks) == []
    for task, steps in here.items():
        assert history.steps(task) == list(range(20))  # each once, in order
        assert history.steps(task, pid=other.pid) == list(range(len(steps), 20))
    assert history.find("crashed") == []
    assert history.find("lost") == []
    assert app.fatal.list() == []
    assert {each.status for each in ends(app, tasks).values()} == {"done"}
    other.signal(signal.SIGTERM)
    assert other.wait() == 0


def test_a_long_handler_keeps_its_lease_while_its_worker_stops(
    app: App, fleet: Fleet, history: Reader, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    first = fleet.start(QUEUE, lease=LEASE)
    tasks = enqueue(app, "gated-plain", gate=str(gate))
    (task,) = tasks
    until(lambda: history.update().steps(task) == [0, 1], "the handler runs")
    other = fleet.start(QUEUE, lease=LEASE)
    other.started()
    moment = first.signal(signal.SIGTERM)
    until(lambda: time.monotonic() > moment + 2.5 * LEASE, "two leases and a half have passed", pause=0.1)
    assert ends(app, tasks)[task].status == "leased"
    gate.touch()
    assert first.wait() == 0, first.output
    until(lambda: at_rest(app, QUEUE), "the chain has ended")
    assert problems(app, history, tasks) == []
    assert history.steps(task, pid=first.pid) == [0, 1]
    assert history.steps(task, pid=other.pid) == [2]
    assert history.find("crashed") == []
    assert history.find("lost") == []


def test_what_is_not_begun_is_given_back(app: App, fleet: Fleet, history: Reader) -> None:
    worker = fleet.start(QUEUE, limit=8, freeze="acquire")
    tasks = enqueue(app, "errand", 12)
    until(lambda: app.stats(QUEUE).leased, "tasks are on their way to the worker")
    worker.signal(signal.SIGTERM)  # its fetcher gets them when it stops
    assert worker.wait() == 0, worker.output
    released = history.update().find("released", pid=worker.pid, note="stop")
    assert 1 <= len(released) == len({each.task for each in released}) <= 8
    assert history.find("start") == []
    stats = app.stats(QUEUE)
    assert (stats.ready, stats.leased) == (12, 0)
    assert deaths(app, tasks) == dict.fromkeys(tasks, 0)

    fleet.start(QUEUE)
    until(lambda: at_rest(app, QUEUE), "all is done")
    assert problems(app, history, tasks) == []
    assert {each.status for each in ends(app, tasks).values()} == {"done"}
    assert history.find("crashed") == []


def deaths(app: App, tasks: dict[str, Expected]) -> dict[str, int]:
    """What the broker would tell the next worker of these tasks."""
    broker = app.dispatch.broker
    leases = broker.acquire(QUEUE, limit=len(tasks), wait=0, lease_for=30, ids=tasks)
    broker.release([Write(lease=lease, body=lease.envelope.body, seq=1) for lease in leases])
    return {lease.envelope.id: lease.deaths for lease in leases}


@pytest.mark.parametrize("job, why", [("failing-in-slot", "stop"), ("failing-delayed", "retry")])
def test_a_retry_sleep_keeps_its_tries(app: App, fleet: Fleet, history: Reader, job: str, why: str) -> None:
    first = fleet.start(QUEUE)
    (task,) = enqueue(app, job)
    until(lambda: len(history.update().find("retried", task=task)) == 2, "the second try has failed")
    moment = first.signal(signal.SIGTERM)
    assert first.wait() == 0, first.output
    assert time.monotonic() - moment < SLACK
    tries = len(history.update().steps(task))
    assert app.task(task).task().tries == tries == 2
    assert len(history.find("released", task=task, note=why)) >= 1
    fleet.start(QUEUE)
    until(lambda: history.update().find("buried", task=task), "no try is left")
    assert [each.count for each in history.find("start", task=task)] == [0, 1, 2, 3]
    assert [each.count for each in history.find("retried", task=task)] == [1, 2, 3]
    assert history.find("crashed") == []
    assert ends(app, [task])[task].outcome == "failed"


def crashed_as_it_should(app: App, fleet: Fleet, history: Reader, first: Process, task: str) -> None:
    """After a stop that wasn't clean the rules for crashes apply to the task in the second step of `gated-…`."""
    assert ends(app, [task])[task].status == "leased"  # it said nothing about the task when it ended
    other = fleet.start(QUEUE, lease=LEASE)
    until(lambda: at_rest(app, QUEUE), "the task has ended or is in the fatal queue")
    history.update()
    end = ends(app, [task])[task]
    assert history.steps(task, pid=first.pid) == [0, 1]
    assert [each.count for each in history.find("crashed", task=task)] == [1]
    if app.task(task).task().job_name == "gated-plain":
        assert (end.status, end.outcome, end.step) == ("fatal", "in_doubt", "late")
        assert history.steps(task, pid=other.pid) == []
    else:
        assert end.status == "done"
        assert history.steps(task, pid=other.pid) == [1, 2]


@pytest.mark.parametrize("job", ["gated-plain", "gated-reentrant"])
def test_a_second_signal_ends_at_once(
    app: App, fleet: Fleet, history: Reader, *, tmp_path: Path, figures: Callable[[str], None], job: str
) -> None:
    gate = tmp_path / "gate"
    worker = fleet.start(QUEUE, lease=LEASE)
    tasks = enqueue(app, job, gate=str(gate))
    (task,) = tasks
    until(lambda: history.update().steps(task) == [0, 1], "the handler runs")
    worker.signal(signal.SIGTERM)
    worker.stopping()
    moment = worker.signal(signal.SIGTERM)
    assert worker.wait() == 128 + signal.SIGTERM
    took = time.monotonic() - moment
    figures(f"ended {took:.3f} s after the second SIGTERM")
    assert took < SLACK
    gate.touch()
    crashed_as_it_should(app, fleet, history, worker, task)
    assert problems(app, history, tasks) == []


@pytest.mark.parametrize("job", ["gated-plain", "gated-reentrant"])
def test_the_end_of_the_grace_time(
    app: App, fleet: Fleet, history: Reader, *, tmp_path: Path, figures: Callable[[str], None], job: str
) -> None:
    gate, grace = tmp_path / "gate", 1.5
    worker = fleet.start(QUEUE, lease=LEASE, grace=grace)
    tasks = enqueue(app, job, gate=str(gate))
    (task,) = tasks
    until(lambda: history.update().steps(task) == [0, 1], "the handler runs")
    moment = worker.signal(signal.SIGTERM)
    code = worker.wait()
    took = time.monotonic() - moment
    figures(f"ended {took:.2f} s after SIGTERM with {grace:g} s of grace, exit code {code}")
    assert code == 1  # not every handler ended in time
    assert grace <= took < grace + SLACK
    assert "their tasks count as crashed" in worker.output
    gate.touch()
    crashed_as_it_should(app, fleet, history, worker, task)
    assert problems(app, history, tasks) == []
