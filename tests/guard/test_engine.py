"""What a task costs its producer and its worker, beside what the broker does for it."""

from __future__ import annotations

from collections.abc import Callable

from tests.guard.budgets import PRODUCER, WORKER
from tests.guard.costs import Costs, keep
from tests.guard.functions import Functions
from tests.guard.rounds import Rounds
from tests.guard.ways import Ways

_ROUNDS = 20


def test_enqueueing_takes_no_more_than_it_did(memory_url: str, figures: Callable[[str], None]) -> None:
    ways = Ways(memory_url)

    def count(way: Callable[[], None]) -> Costs:
        with Functions() as functions:
            way()
        return {"functions": functions.calls}

    measured = ways.counted(count)
    ways.app.close()
    keep("the producer", {way: measured[way] for way in PRODUCER}, PRODUCER, figures)


def test_a_worker_takes_no_more_than_it_did(figures: Callable[[str], None]) -> None:
    measured = {}
    for way, steps in (("one step", 1), ("three steps", 3)):
        with Functions() as functions:
            calls = Rounds().work(steps=steps, rounds=_ROUNDS)
        measured[way] = {**calls, "functions": functions.calls / (_ROUNDS * 10)}
    keep("a worker", measured, WORKER, figures)
