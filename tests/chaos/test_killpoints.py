"""Each kill-point of the table is passed by a worker, and one that is asked for does what it says."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from gotasks import reentrant
from gotasks.broker import Envelope
from gotasks.conformance.kit import jobs
from gotasks.conformance.kit.history import Reader, Writer
from gotasks.conformance.kit.killpoints import POINTS, Killpoint, PointedBroker
from gotasks.conformance.kit.process import until
from gotasks.errors import ConfigurationError
from gotasks.job import step
from gotasks.memory import MemoryBroker


class Counting(Killpoint):
    """Does nothing but count."""

    def __init__(self, history: Writer) -> None:
        super().__init__(history)
        self.passed: Counter[str] = Counter()

    def passing(self, name: str) -> None:
        self.passed[name] += 1


def test_every_point_is_passed(tmp_path: Path) -> None:
    history = Writer(str(tmp_path / "history"))
    point, inner, gate = Counting(history), MemoryBroker(), tmp_path / "gate"
    app = jobs.build(history, point)
    app.events.listen(point.listen)
    app.use_broker(PointedBroker(inner, point, history))
    queue = app.queue("orders", lease=0.3)
    app.register(
        "flaky", reentrant(step(jobs.Handlers(history, point).failing, name="f"), max_times=1, sleepy_ms=1)
    )
    for name in ("storm-plain", "failing", "flaky"):
        queue.enqueue(name, {"trail": []})
    died = queue.enqueue("errand-reentrant", {"trail": []})
    inner.acquire("orders", limit=1, wait=0, lease_for=0.01, ids=[died.id])
    lost, stopped = (queue.enqueue("gated-plain", {"trail": [], "gate": str(gate)}) for _ in range(2))
    with app.worker():
        until(lambda: point.passed["in_step"] >= 8 and point.passed["crashed"], "all handlers run")
        inner.cancel([lost.id], keep_for=0)
        until(lambda: point.passed["lost"] and point.passed["after_extend"], "the lost lease is seen")
        threading.Timer(0.2, gate.touch).start()
    assert app.task(stopped.id).task().current_handler_index == 2
    assert set(point.passed) == set(POINTS)
    app.close()
    history.close()


@pytest.mark.parametrize("text", ["nowhere:1", "in_step", "in_step:", "in_step:x", "in_step:1:jump"])
def test_a_point_that_is_none(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="GOTASKS_KILLPOINT is NAME:N"):
        Killpoint.of(text, Writer(str(tmp_path / "history")))


def test_the_nth_passing_is_held_until_the_worker_stops(tmp_path: Path) -> None:
    history = Writer(str(tmp_path / "history"))
    point = Killpoint.of("acquired:2:hold", history)
    broker = PointedBroker(MemoryBroker(), point, history)
    broker.enqueue([Envelope(id=f"t{number}", queue="q", body=b"") for number in range(2)])
    assert broker.acquire("q", limit=1, wait=0, lease_for=60)
    held = threading.Thread(target=lambda: broker.acquire("q", limit=1, wait=0, lease_for=60))
    held.start()
    reader = Reader(tmp_path / "history")
    until(lambda: reader.update().find("killpoint", note="acquired"), "the point is met")
    held.join(0.1)
    assert held.is_alive()
    broker.interrupt("q")
    held.join(10)
    assert not held.is_alive()
    reader.close()
