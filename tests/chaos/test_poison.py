"""A task that kills every worker that touches it ends in the fatal queue, and the fleet goes on (G5, G8)."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from gotasks import App
from tests.chaos.ends import at_rest, ends
from tests.chaos.history import Reader
from tests.chaos.processes import Fleet, until

QUEUE = "chaos"
LEASE = 1.0
#: The default of `max_crashes`.
DEATHS = 3


@pytest.mark.timeout(120)
def test_poison(app: App, fleet: Fleet, history: Reader, figures: Callable[[str], None]) -> None:
    began = time.monotonic()
    queue = app.queue(QUEUE)
    reentrant = queue.enqueue("poison-reentrant", {"trail": []}).id
    plain = queue.enqueue("poison-plain", {"trail": []}).id
    errands = [each.id for each in queue.enqueue_many("errand-reentrant", [{"trail": []}] * 200)]
    supervisor = fleet.start(QUEUE, lease=LEASE, processes=2)
    until(lambda: at_rest(app, QUEUE), "the queue is empty", timeout=60)
    took = time.monotonic() - began
    history.update()
    found = ends(app, [reentrant, plain, *errands])
    figures(
        f"{len({each.pid for each in history.entries})} processes, {len(history.find('crashed'))} deaths counted, "
        f"200 other tasks done in {len(history.find('start')) - DEATHS - 1} starts, {took:.1f} s"
    )
    assert (found[reentrant].status, found[reentrant].outcome) == ("fatal", "crashed")
    assert len({each.pid for each in history.find("start", task=reentrant)}) == DEATHS
    assert len(history.find("start", task=reentrant)) == DEATHS
    assert [each.count for each in history.find("crashed", task=reentrant)] == [1, 2, DEATHS]

    assert (found[plain].status, found[plain].outcome) == ("fatal", "in_doubt")
    assert found[plain].step == "poison"
    assert len(history.find("start", task=plain)) == 1

    # Nobody else was taken for poison, and the fleet is still there.
    assert sorted(each.id for each in app.fatal.list()) == sorted([reentrant, plain])
    assert {found[task].status for task in errands} == {"done"}
    more = [each.id for each in queue.enqueue_many("errand", [{"trail": []}] * 20)]
    until(lambda: at_rest(app, QUEUE), "more tasks are done")
    assert {each.status for each in ends(app, more).values()} == {"done"}
    supervisor.signal(signal.SIGTERM)
    assert supervisor.wait() == 0, supervisor.output


@pytest.mark.timeout(120)
def test_what_runs_beside_a_poison_is_not_taken_for_one(
    app: App, fleet: Fleet, history: Reader, figures: Callable[[str], None]
) -> None:
    queue = app.queue(QUEUE)
    poison = queue.enqueue("poison-reentrant", {"trail": []}).id
    # Slower than the poison, so that they die beside it whenever they are taken up with it.
    slow = [each.id for each in queue.enqueue_many("slow-reentrant", [{"trail": []}] * 12)]
    fleet.start(QUEUE, lease=LEASE, processes=2)
    until(lambda: at_rest(app, QUEUE), "the queue is empty", timeout=90)
    found = ends(app, [poison, *slow])
    history.update()
    figures(f"12 slow tasks beside a poison: {len(history.find('start')) - DEATHS} starts")
    assert (found[poison].status, found[poison].outcome) == ("fatal", "crashed")
    assert {found[task].status for task in slow} == {"done"}


@pytest.mark.timeout(120)
def test_several_poisons_are_each_counted(
    app: App, fleet: Fleet, history: Reader, figures: Callable[[str], None]
) -> None:
    """One is run alone, the others are given back, and none of them begins to count anew."""
    queue = app.queue(QUEUE)
    poisons = [each.id for each in queue.enqueue_many("poison-reentrant", [{"trail": []}] * 4)]
    fleet.start(QUEUE, lease=LEASE, processes=2)
    until(lambda: at_rest(app, QUEUE), "the queue is empty", timeout=90)
    found = ends(app, poisons)
    history.update()
    starts = [len(history.find("start", task=each)) for each in poisons]
    figures(f"four poisons: {starts} starts")
    assert {(each.status, each.outcome) for each in found.values()} == {("fatal", "crashed")}
    assert max(starts) <= DEATHS
