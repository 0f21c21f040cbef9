"""A worker stands still for longer than its lease, and goes on when somebody else has its task: nothing it does counts.

(G7, and G4 and G5 for the one who has taken over.)
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from gotasks import App
from tests.chaos import jobs
from tests.chaos.ends import at_rest, ends
from tests.chaos.history import Account, End, Expected, Reader
from tests.chaos.processes import Fleet, Process, until

QUEUE = "chaos"
LEASE = 1.0


class Scene:
    """A task, the worker that becomes a zombie with it, and the one that takes it over."""

    def __init__(self, app: App, fleet: Fleet, history: Reader, gate: Path, job: str) -> None:
        self._app = app
        self._fleet = fleet
        self._history = history
        self._gate = gate
        self._job = app.jobs[job]
        self._args = {"trail": [], jobs.GATE: str(gate)}
        self.task = ""

    def begin(self, *, freeze: str | None = None) -> Process:
        """The worker that shall become a zombie, with the task."""
        self.zombie = self._fleet.start(QUEUE, lease=LEASE, freeze=freeze)
        self.task = self._app.queue(QUEUE).enqueue(self._job, self._args).id
        return self.zombie

    def take_over(self) -> None:
        """Another worker, and what it does when the lease is over: run the step again, or bury the task."""
        self.other = self._fleet.start(QUEUE, lease=LEASE)
        until(
            lambda: self.here("start", self.other) or self.here("buried", self.other),
            "somebody else has taken the task",
        )

    def here(self, what: str, process: Process) -> int:
        """How often this happened to the task in this process."""
        return len(self._history.update().find(what, task=self.task, pid=process.pid))

    def steps(self, process: Process) -> list[int]:
        """The steps of the task that were started in this process."""
        return self._history.update().steps(self.task, pid=process.pid)

    def open_gate(self) -> None:
        self._gate.touch()

    def finish(self) -> End:
        """Let both end what they have begun. Returns how the task stands."""
        until(lambda: at_rest(self._app, QUEUE), "the task has ended or is in the fatal queue")
        # The zombie is a worker as any other now; with these tasks it's certain that it has done all that it
        # would do with the first one.
        self.other.signal(signal.SIGTERM)
        assert self.other.wait() == 0, self.other.output
        self._app.queue(QUEUE).enqueue_many("errand", [{"trail": []}] * 12)
        until(lambda: at_rest(self._app, QUEUE), "the zombie works again")
        self.zombie.signal(signal.SIGTERM)
        assert self.zombie.wait() == 0, self.zombie.output
        return ends(self._app, [self.task])[self.task]

    def problems(self, end: End) -> list[str]:
        entries = [each for each in self._history.update().entries if each.task == self.task]
        expected = Expected.of(self._job, self._args)
        return Account(entries, {self.task: expected}, {self.task: end}).problems()


@pytest.fixture
def scene(request: pytest.FixtureRequest, app: App, fleet: Fleet, history: Reader, tmp_path: Path) -> Scene:
    return Scene(app, fleet, history, tmp_path / "gate", request.param)


@pytest.mark.parametrize("scene", ["gated-reentrant"], indirect=True)
def test_stopped_in_a_reentrant_step(scene: Scene, history: Reader) -> None:
    zombie = scene.begin()
    until(lambda: scene.steps(zombie) == [0, 1], "the zombie-to-be is in the step")
    zombie.freeze()
    scene.take_over()
    zombie.thaw()
    until(lambda: scene.here("lost", zombie), "the zombie knows that its lease is lost")
    assert scene.steps(scene.other) == [1]
    scene.open_gate()  # both handlers return, the zombie's in vain
    until(lambda: scene.here("end", zombie) == 2, "the zombie's handler has returned")
    end = scene.finish()
    assert end.status == "done"
    assert scene.problems(end) == []
    assert scene.steps(zombie) == [0, 1]
    assert scene.steps(scene.other) == [1, 2]
    assert (scene.here("done", zombie), scene.here("done", scene.other)) == (0, 1)
    assert (scene.here("lost", zombie), scene.here("lost", scene.other)) == (1, 0)


@pytest.mark.parametrize("scene", ["gated-plain"], indirect=True)
def test_stopped_in_a_step_that_is_not_reentrant(scene: Scene, app: App) -> None:
    zombie = scene.begin()
    until(lambda: scene.steps(zombie) == [0, 1], "the zombie-to-be is in the step")
    zombie.freeze()
    scene.take_over()
    buried = ends(app, [scene.task])[scene.task]
    assert (buried.status, buried.outcome, buried.step) == ("fatal", "in_doubt", "late")
    zombie.thaw()
    until(lambda: scene.here("lost", zombie), "the zombie knows that its lease is lost")
    scene.open_gate()
    until(lambda: scene.here("end", zombie) == 2, "the zombie's handler has returned")
    end = scene.finish()
    assert end == buried
    assert end.args["trail"] == [0]  # as they were before the step
    assert scene.problems(end) == []
    assert scene.steps(zombie) == [0, 1]
    assert scene.steps(scene.other) == []
    assert scene.here("lost", zombie) == 1


WRITES = [("checkpoint", ""), ("ack", "-last"), ("release", "")]


@pytest.mark.parametrize(
    "write, scene", [(write, f"frozen-reentrant{last}") for write, last in WRITES], indirect=["scene"]
)
def test_a_late_write_while_another_worker_runs_the_step_again(scene: Scene, write: str) -> None:
    zombie = scene.begin(freeze=write)
    zombie.frozen()
    scene.take_over()
    zombie.thaw()
    until(lambda: scene.here("refused", zombie), f"the late {write} is refused")
    until(lambda: scene.here("lost", zombie), "the zombie knows that its lease is lost")
    scene.open_gate()
    end = scene.finish()
    assert end.status == "done"
    assert scene.problems(end) == []
    assert scene.steps(zombie) == [0]
    assert scene.steps(scene.other) == ([0] if write == "ack" else [0, 1])
    assert (scene.here("done", zombie), scene.here("done", scene.other)) == (0, 1)
    assert (scene.here("lost", zombie), scene.here("lost", scene.other)) == (1, 0)


@pytest.mark.parametrize(
    "write, scene", [(write, f"frozen-plain{last}") for write, last in WRITES], indirect=["scene"]
)
def test_a_late_write_when_the_task_is_in_doubt(scene: Scene, write: str, app: App) -> None:
    zombie = scene.begin(freeze=write)
    zombie.frozen()
    scene.take_over()
    buried = ends(app, [scene.task])[scene.task]
    assert (buried.status, buried.outcome, buried.step) == ("fatal", "in_doubt", "late")
    zombie.thaw()
    until(lambda: scene.here("refused", zombie), f"the late {write} is refused")
    until(lambda: scene.here("lost", zombie), "the zombie knows that its lease is lost")
    end = scene.finish()
    assert end == buried
    assert end.args["trail"] == []
    assert scene.steps(zombie) == [0]
    assert scene.steps(scene.other) == []
    assert (scene.here("done", zombie), scene.here("lost", zombie)) == (0, 1)
