"""A task that kills every worker that touches it ends in the fatal queue, and the fleet goes on (G5, G8)."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from gotasks.conformance.kit.crew import Crew

LEASE = 1.0
#: The default of `max_crashes`.
DEATHS = 3


@pytest.mark.timeout(120)
def test_poison(crew: Crew, figures: Callable[[str], None]) -> None:
    began = time.monotonic()
    reentrant = crew.enqueue("poison-reentrant")
    plain = crew.enqueue("poison-plain")
    errands = crew.enqueue_many("errand-reentrant", 200)
    supervisor = crew.start(lease=LEASE, processes=2)
    crew.settled(timeout=60)
    took = time.monotonic() - began
    history = crew.history.update()
    found = crew.ends()
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
    assert sorted(each.id for each in crew.app.fatal.list()) == sorted([reentrant, plain])
    assert {found[task].status for task in errands} == {"done"}
    more = crew.enqueue_many("errand", 20)
    crew.settled()
    assert {each.status for each in crew.ends(more).values()} == {"done"}
    supervisor.signal(signal.SIGTERM)
    assert supervisor.wait() == 0, supervisor.output


@pytest.mark.timeout(120)
def test_what_runs_beside_a_poison_is_not_taken_for_one(crew: Crew, figures: Callable[[str], None]) -> None:
    poison = crew.enqueue("poison-reentrant")
    # Slower than the poison, so that they die beside it whenever they are taken up with it.
    slow = crew.enqueue_many("errand-reentrant", 12, ms=1000)
    crew.start(lease=LEASE, processes=2)
    crew.settled(timeout=90)
    found = crew.ends()
    history = crew.history.update()
    figures(f"12 slow tasks beside a poison: {len(history.find('start')) - DEATHS} starts")
    assert (found[poison].status, found[poison].outcome) == ("fatal", "crashed")
    assert {found[task].status for task in slow} == {"done"}


@pytest.mark.timeout(120)
def test_several_poisons_are_each_counted(crew: Crew, figures: Callable[[str], None]) -> None:
    """One is run alone, the others are given back, and none of them begins to count anew."""
    poisons = crew.enqueue_many("poison-reentrant", 4)
    crew.start(lease=LEASE, processes=2)
    crew.settled(timeout=90)
    found = crew.ends()
    history = crew.history.update()
    starts = [len(history.find("start", task=each)) for each in poisons]
    figures(f"four poisons: {starts} starts")
    assert {(each.status, each.outcome) for each in found.values()} == {("fatal", "crashed")}
    assert max(starts) <= DEATHS
