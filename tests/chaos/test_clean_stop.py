"""SIGTERM: no step follows, what runs ends, the chains go on elsewhere, and nothing counts as a crash (G9)."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from gotasks.conformance.kit.crew import Crew
from gotasks.conformance.kit.process import Process, until

LEASE = 1.0

#: What a stop takes apart from the running handlers: to notice the signal, the last writes, the end
#: of the interpreter, on a machine that does other things too. Seconds.
SLACK = 1.0


def test_long_chains_go_on_elsewhere(crew: Crew, figures: Callable[[str], None]) -> None:
    first = crew.start(limit=8)
    tasks = crew.enqueue_many("long", 6, ms=100)
    until(
        lambda: all(len(crew.history.update().steps(task)) > 3 for task in tasks),
        "all chains are at the 4th step",
    )
    other = crew.start(limit=8)
    other.started()
    moment = first.signal(signal.SIGTERM)
    code = first.wait()
    took = time.monotonic() - moment
    crew.history.update()
    here = {task: crew.history.steps(task, pid=first.pid) for task in tasks}
    late = max(each.at for each in crew.history.find("start", pid=first.pid)) - moment
    figures(
        f"stopped {took:.2f} s after SIGTERM in chains of {sum(map(len, here.values()))} of 120 steps, the last "
        f"of them started {late:+.3f} s after it"
    )
    assert code == 0, first.output
    assert took < 0.1 + SLACK
    assert late < SLACK / 2
    assert all(3 < len(steps) < 20 for steps in here.values())
    for task in tasks:
        assert crew.history.find("released", task=task, pid=first.pid, note="stop")

    crew.settled()
    assert crew.problems() == []
    for task, steps in here.items():
        assert crew.history.steps(task) == list(range(20))  # each once, in order
        assert crew.history.steps(task, pid=other.pid) == list(range(len(steps), 20))
    assert crew.history.find("crashed") == []
    assert crew.history.find("lost") == []
    assert crew.app.fatal.list() == []
    assert {each.status for each in crew.ends().values()} == {"done"}
    other.signal(signal.SIGTERM)
    assert other.wait() == 0


def test_a_long_handler_keeps_its_lease_while_its_worker_stops(crew: Crew) -> None:
    gate = crew.gate()
    first = crew.start(lease=LEASE)
    task = crew.enqueue("gated-plain", gate=str(gate))
    until(lambda: crew.history.update().steps(task) == [0, 1], "the handler runs")
    other = crew.start(lease=LEASE)
    other.started()
    moment = first.signal(signal.SIGTERM)
    until(lambda: time.monotonic() > moment + 2.5 * LEASE, "two leases and a half have passed", pause=0.1)
    assert crew.ends()[task].status == "leased"
    gate.touch()
    assert first.wait() == 0, first.output
    crew.settled()
    assert crew.problems() == []
    assert crew.history.steps(task, pid=first.pid) == [0, 1]
    assert crew.history.steps(task, pid=other.pid) == [2]
    assert crew.history.find("crashed") == []
    assert crew.history.find("lost") == []


@pytest.mark.parametrize("job, why", [("failing-in-slot", "stop"), ("failing-delayed", "retry")])
def test_a_retry_sleep_keeps_its_tries(crew: Crew, job: str, why: str) -> None:
    first = crew.start()
    task = crew.enqueue(job)
    until(lambda: len(crew.history.update().find("retried", task=task)) == 2, "the second try has failed")
    moment = first.signal(signal.SIGTERM)
    assert first.wait() == 0, first.output
    assert time.monotonic() - moment < SLACK
    tries = len(crew.history.update().steps(task))
    assert crew.app.task(task).task().tries == tries == 2
    assert len(crew.history.find("released", task=task, note=why)) >= 1
    crew.start()
    until(lambda: crew.history.update().find("buried", task=task), "no try is left")
    assert [each.count for each in crew.history.find("start", task=task)] == [0, 1, 2, 3]
    assert [each.count for each in crew.history.find("retried", task=task)] == [1, 2, 3]
    assert crew.history.find("crashed") == []
    assert crew.ends()[task].outcome == "failed"


def crashed_as_it_should(crew: Crew, first: Process, task: str) -> None:
    """After a stop that wasn't clean the rules for crashes apply to the task in the second step of `gated-…`."""
    assert crew.ends()[task].status == "leased"  # it said nothing about the task when it ended
    other = crew.start(lease=LEASE)
    crew.settled()
    crew.history.update()
    end = crew.ends()[task]
    assert crew.history.steps(task, pid=first.pid) == [0, 1]
    assert [each.count for each in crew.history.find("crashed", task=task)] == [1]
    if crew.app.task(task).task().job_name == "gated-plain":
        assert (end.status, end.outcome, end.step) == ("fatal", "in_doubt", "late")
        assert crew.history.steps(task, pid=other.pid) == []
    else:
        assert end.status == "done"
        assert crew.history.steps(task, pid=other.pid) == [1, 2]


@pytest.mark.parametrize("job", ["gated-plain", "gated-reentrant"])
def test_the_end_of_the_grace_time(crew: Crew, figures: Callable[[str], None], job: str) -> None:
    gate, grace = crew.gate(), 1.5
    worker = crew.start(lease=LEASE, grace=grace)
    task = crew.enqueue(job, gate=str(gate))
    until(lambda: crew.history.update().steps(task) == [0, 1], "the handler runs")
    moment = worker.signal(signal.SIGTERM)
    code = worker.wait()
    took = time.monotonic() - moment
    figures(f"ended {took:.2f} s after SIGTERM with {grace:g} s of grace, exit code {code}")
    assert code == 1  # not every handler ended in time
    assert grace <= took < grace + SLACK
    assert "their tasks count as crashed" in worker.output
    gate.touch()
    crashed_as_it_should(crew, worker, task)
    assert crew.problems() == []
