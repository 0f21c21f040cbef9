"""The checks of a history, shown to find what they are for in histories that are bad on purpose."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.chaos.history import Account, End, Entry, Expected, Reader, Writer

WANTED = {"n": 1, "trail": [0, 1, 2]}
PLAIN = Expected(steps=("a", "b", "c"), reentrant=(True, False, True), args=WANTED)
AGAIN = Expected(steps=("a", "b", "c"), reentrant=(True, True, True), args=WANTED)
DONE = End(status="done", args=WANTED)
IN_DOUBT = End(status="fatal", outcome="in_doubt", step="b")

GOOD = "+0 -0 +1 -1 +2 -2"


def entries(script: str, task: str = "t") -> list[Entry]:
    """`+1` is a start of step 1, `-1` its end."""
    return [
        Entry(what="start" if word[0] == "+" else "end", pid=1, task=task, step=int(word[1:]))
        for word in script.split()
    ]


def account(
    script: str, *, end: End = DONE, expected: Expected = PLAIN, resumed: Mapping[str, int] | None = None
) -> Account:
    return Account(entries(script), {"t": expected}, {"t": end}, resumed or {})


@pytest.mark.parametrize(
    "good",
    [
        account(GOOD),
        account("+0 +0 -0 +1 -1 +2 +2 -2"),  # a reentrant step died and was run again
        account("+0 -0 +1 +1 -1 +2 -2", expected=AGAIN),
        account("+0 -0 +1 -1 +2 -2 -1", expected=AGAIN),  # a zombie's handler ends late
        account("+0 -0 +1", end=IN_DOUBT),
        account("+0 -0 +1 -1", end=IN_DOUBT),  # ended, and its checkpoint didn't arrive
        account("+0 -0", end=IN_DOUBT),  # delivered, and not begun
        account("+0 -0 +1 +1 -1 +2 -2", resumed={"t": 1}),
    ],
    ids=lambda each: " ".join(f"{entry.what}{entry.step}" for entry in each.entries),
)
def test_what_is_allowed(good: Account) -> None:
    assert good.problems() == []


@pytest.mark.parametrize(
    "state", ["", "ready", "leased", "scheduled", "cancelled"], ids=lambda state: state or "nowhere"
)
def test_lost(state: str) -> None:
    bad = account("+0 -0", end=End(status=state))
    assert bad.problems() == [f"lost: t is {state or 'nowhere'}"]


def test_lost_without_a_trace() -> None:
    bad = Account([], {"t": PLAIN}, {})
    assert bad.problems() == ["lost: t is nowhere"]


@pytest.mark.parametrize("trail", [[0, 1], [0, 1, 1, 2], [1, 0, 2]])
def test_lost_args(trail: list[int]) -> None:
    (problem,) = account(GOOD, end=End(status="done", args={"n": 1, "trail": trail})).problems()
    assert problem.startswith("lost: t is done with ")


def test_a_task_that_nobody_enqueued() -> None:
    bad = Account([*entries(GOOD), *entries("+0", task="x")], {"t": PLAIN}, {"t": DONE})
    assert bad.problems() == ["lost: x was run, and nobody enqueued it"]


@pytest.mark.parametrize(
    "bad, count",
    [
        (account("+0 -0 +1 +1 -1 +2 -2"), 2),
        (account("+0 -0 +1 -1 +1", end=IN_DOUBT), 2),
        (account("+0 -0 +1 +1 +1 -1 +2 -2", resumed={"t": 1}), 3),
        (account("+0 -0 +1 +1 -1 +2 -2", resumed={"t": 2}), 2),
    ],
)
def test_doubled(bad: Account, count: int) -> None:
    assert bad.problems() == [f"doubled: t started b {count} times"]


def test_rewound() -> None:
    bad = account("+0 -0 +1 -1 +0 -0 +2 -2", expected=AGAIN)
    assert bad.problems() == ["rewound: t started step 0 after 1"]


def test_rewound_to_a_step_that_is_not_reentrant() -> None:
    bad = account("+0 -0 +1 -1 +2 -2 +1")
    assert bad.problems() == ["doubled: t started b 2 times", "rewound: t started step 1 after 2"]


def test_a_step_before_the_one_before_has_ended() -> None:
    bad = account("+0 -0 +2 +1 -1 -2")
    assert "disordered: t started step 2 before 1 ended" in bad.problems()


def test_done_without_a_step() -> None:
    assert account("+0 -0 +1 -1").problems() == ["disordered: t is done without steps [2]"]


def test_done_without_the_end_of_a_step() -> None:
    assert account("+0 -0 +1 -1 +2").problems() == ["disordered: t is done without steps [2]"]


@pytest.mark.parametrize(
    "bad",
    [
        account("+0 -0 +1", end=End(status="fatal", outcome="in_doubt", step="c")),
        account("+0 -0 +1", end=End(status="fatal", outcome="in_doubt", step="a")),
        account("+0 -0 +1 -1", end=End(status="fatal", outcome="in_doubt", step="c")),  # it is reentrant
        account("+0", end=IN_DOUBT),  # the step before hasn't ended
        account("+0 -0 +1", end=IN_DOUBT, expected=AGAIN),
        account("", end=IN_DOUBT),
    ],
)
def test_in_doubt_at_the_wrong_step(bad: Account) -> None:
    (problem,) = bad.problems()
    assert problem.startswith(f"misburied: t is in doubt at {bad.ends['t'].step}; it can only be at ")


@pytest.mark.parametrize("outcome", ["failed", "crashed", "unreadable"])
def test_buried_for_another_reason(outcome: str) -> None:
    bad = account("+0 -0 +1", end=End(status="fatal", outcome=outcome, step="b"))
    assert bad.problems() == [f"misburied: t lies in the fatal queue, {outcome} at b"]


def test_a_reader_follows_a_file_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    reader, writer = Reader(path), Writer(str(path))
    assert reader.update().entries == []
    writer.write("start", task="t", step=0, count=2)
    assert list(reader.update().running(os.getpid())) == [("t", 0)]
    assert reader.consumes(os.getpid())
    assert not reader.consumes(os.getpid() + 1)
    with path.open("ab") as file:  # the half of a line that another process is writing
        file.write(json.dumps({"what": "end", "pid": os.getpid(), "task": "t", "step": 0}).encode()[:20])
    assert list(reader.update().running(os.getpid())) == [("t", 0)]
    with path.open("ab") as file:
        file.write(
            json.dumps({"what": "end", "pid": os.getpid(), "task": "t", "step": 0}).encode()[20:] + b"\n"
        )
    assert list(reader.update().running(os.getpid())) == []
    assert [(each.what, each.count) for each in reader.entries] == [("start", 2), ("end", 0)]
    assert reader.steps("t") == [0]
    reader.close()
