"""The checks of a history, shown to find what they are for in histories that are bad on purpose."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from gotasks.conformance.kit.account import Account, End, Expected
from gotasks.conformance.kit.history import Entry, Reader, Writer

WANTED = {"n": 1, "trail": [0, 1, 2]}
PLAIN = Expected(steps=("a", "b", "c"), reentrant=(True, False, True), args=WANTED)
AGAIN = Expected(steps=("a", "b", "c"), reentrant=(True, True, True), args=WANTED)
DONE = End(status="done", args=WANTED)
IN_DOUBT = End(status="fatal", outcome="in_doubt", step="b")

GOOD = "+0 -0 +1 -1 +2 -2"


_WORD = re.compile(r"([-+!*x])(\d?)(?:\[(\d*)\])?")
_KINDS = {"+": "start", "-": "end", "!": "confirmed", "*": "done", "x": "raised"}


def entries(script: str, task: str = "t") -> list[Entry]:
    """`+1` is a start of step 1, `+1[02]` one whose args map says that steps 0 and 2 were there; `-1` is its end.

    `x1`: it raised. `!1`: a checkpoint before step 1 was confirmed. `*`: the task was acked.
    """
    found = []
    for word in script.split():
        match = _WORD.fullmatch(word)
        assert match is not None
        kind, step, trail = match.groups()
        seen = None if trail is None else tuple(map(int, trail))
        found.append(Entry(what=_KINDS[kind], pid=1, task=task, step=int(step or -1), trail=seen))
    return found


def account(
    script: str,
    *,
    end: End = DONE,
    expected: Expected = PLAIN,
    resumed: Mapping[str, int] | None = None,
    unknown: Collection[str] = (),
) -> Account:
    return Account(entries(script), {"t": expected}, {"t": end}, resumed or {}, unknown)


@pytest.mark.parametrize(
    "good",
    [
        account(GOOD),
        account("+0[] -0 !1 +1[0] -1 !2 +2[01] -2 *"),
        account("+0 +0 -0 +1 -1 +2 +2 -2"),  # a reentrant step died and was run again
        account("+0 x0 +0 x0 +0 -0 +1 -1 +2 -2"),  # it raised and was tried again
        account("+0 -0 +1 +1 -1 +2 -2", expected=AGAIN),
        account("+0 -0 +1 -1 +2 -2 -1", expected=AGAIN),  # a zombie's handler ends late
        account("+0 -0 !1 +1 -1 +1[0] -1 !2 +2 -2", expected=AGAIN),  # its checkpoint didn't arrive
        account("+0 -0 +1 -1 +2 -2 +2[01] -2 *"),  # its ack didn't arrive
        account("+0 -0 +1", end=IN_DOUBT),
        account("+0 -0 +1 -1", end=IN_DOUBT),  # ended, and its checkpoint didn't arrive
        account("+0 -0", end=IN_DOUBT),  # delivered, and not begun
        account("+0 -0 +1 +1 -1 +2 -2", resumed={"t": 1}),
        account(GOOD, end=End(status="done")),  # nobody knows with which args
        account("", end=End(status=""), unknown={"t"}),  # its enqueue wasn't carried out
        account(GOOD, unknown={"t"}),  # it was
    ],
    ids=lambda each: " ".join(f"{entry.what}{entry.step}" for entry in each.entries) or "nothing",
)
def test_what_is_allowed(good: Account) -> None:
    assert good.problems() == []


def test_an_unknown_task_that_was_begun_may_not_be_lost() -> None:
    assert account("+0 -0", end=End(status=""), unknown={"t"}).problems() == ["lost: t is nowhere"]


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
    assert bad.problems() == ["unexpected: x is known, and nobody enqueued it"]


def test_a_task_that_nobody_enqueued_and_that_lies_somewhere() -> None:
    bad = Account(entries(GOOD), {"t": PLAIN}, {"t": DONE, "x": End(status="fatal", outcome="failed")})
    assert bad.problems() == ["unexpected: x is known, and nobody enqueued it"]


def test_duplicated_at_rest() -> None:
    assert account(GOOD, end=End(status="done", args=WANTED, copies=2)).problems() == [
        "duplicated: t is in 2 places"
    ]


def test_duplicated_in_time() -> None:
    assert account(f"{GOOD} * *").problems() == ["duplicated: t was done 2 times"]


@pytest.mark.parametrize(
    "script, step, trail",
    [
        ("+0[] -0 +1[] -1 +2[01] -2", 1, []),  # a step got the args of the one before
        ("+0[] -0 +1[0] -1 +2[0] -2", 2, [0]),
        ("+0[] -0 +1[0] -1 +2[011] -2", 2, [0, 1, 1]),  # a result was applied twice
        ("+0[7] -0 +1[0] -1 +2[01] -2", 0, [7]),  # it began with the args of another task
    ],
)
def test_strayed(script: str, step: int, trail: list[int]) -> None:
    assert account(script).problems() == [f"strayed: t started step {step} with the args after steps {trail}"]


@pytest.mark.parametrize("script", ["+0 -0 !1 +0 -0 +1 -1 +2 -2", "+0 -0 !1 !1 +0 +1 -0 -1 +2 -2"])
def test_resumed_below_a_checkpoint(script: str) -> None:
    assert account(script).problems() == [
        "rewound: t started step 0, and a checkpoint before step 1 was confirmed"
    ]


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
