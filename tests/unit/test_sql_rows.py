"""The SQL broker: what goes into its rows, its receipts, and how a call is cut into statements."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotasks.broker import Envelope, Lease
from gotasks_sql import chunks as module
from gotasks_sql.operations import SOME
from gotasks_sql.receipts import receipt_of, token_of
from gotasks_sql.rows import microseconds, unique_hash, unique_key

MOST = 1000


def lease(receipt: str, task_id: str = "a") -> Lease:
    return Lease(
        envelope=Envelope(id=task_id, queue="orders", body=b""), receipt=receipt, deaths=0, deadline=0.0
    )


def chunks(items: list[tuple[str, int]]) -> list[list[tuple[str, int]]]:
    """Items are ids and the lengths of bodies."""
    return list(module.chunks(items, lambda each: (each[0],), lambda each: b"x" * each[1]))


@pytest.mark.parametrize(
    "seconds, whole",
    [(0, 0), (-1, 0), (1e-9, 1), (1e-6, 1), (0.5, 500_000), (86_400.0 * 3650, 315_360_000_000_000)],
)
def test_time_is_whole_microseconds_and_what_is_above_zero_stays_so(seconds: float, whole: int) -> None:
    assert microseconds(seconds) == whole


@pytest.mark.parametrize("seconds", [1e11, 1e13, 1e300, float("inf")])
def test_a_time_that_no_column_holds_is_three_thousand_years(seconds: float) -> None:
    whole = microseconds(seconds)

    assert whole == 10**17
    # Added to the present it still fits, as a time and as a lease on SQLite, which is a little longer.
    assert 2 * 10**15 + whole + 1000 < 2**63


@given(st.text(st.characters(codec=None), max_size=50))
def test_any_text_is_a_unique_key(text: str) -> None:
    key = unique_key(text)

    assert key.decode("utf-8", "surrogatepass") == text
    assert len(unique_hash(text)) == 32


def test_unique_keys_are_compared_as_they_are() -> None:
    keys = ["q", "Q", "é", "e\u0301", "q ", "", "\ud800", "\x00"]

    assert len({unique_hash(each) for each in keys}) == len(keys)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 500)), max_size=40))
def test_a_call_is_cut_where_it_must_be_and_in_order(items: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_BYTES", MOST)
        parts = chunks(items)

    assert [each for part in parts for each in part] == items
    for part in parts:
        assert part
        assert len({task_id for task_id, _ in part}) == len(part)
        assert len(part) == 1 or sum(length for _, length in part) <= MOST
    for before, after in itertools.pairwise(parts):  # none is cut for nothing
        together = sum(length for _, length in before) + after[0][1]
        assert together > MOST or after[0][0] in {task_id for task_id, _ in before}


def test_what_alone_is_too_large_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", MOST)

    assert chunks([("a", 1), ("b", MOST + 1), ("c", 1)]) == [[("a", 1)], [("b", MOST + 1)], [("c", 1)]]


def test_ids_in_parts() -> None:
    ids = [str(each) for each in range(2 * SOME + 1)]

    parts = list(module.parts(ids))
    assert [len(each) for each in parts] == [SOME, SOME, 1]
    assert [each for part in parts for each in part] == ids
    assert list(module.parts([])) == []


def test_a_receipt_holds_for_its_task_only() -> None:
    token = 2**63 - 1
    receipt = receipt_of(token, "a")

    assert token_of(lease(receipt)) == token
    assert token_of(lease(receipt, "b")) == -1


@pytest.mark.parametrize(
    "receipt",
    [
        *("", "a", ".a", "0" * 15 + ".a", "0" * 17 + ".a", "0" * 16, "G" * 16 + ".a"),
        *(f"{2**63:x}.a", "f" * 16 + ".a"),  # no column holds that
    ],
)
def test_what_is_no_receipt_is_no_tasks_token(receipt: str) -> None:
    assert token_of(lease(receipt)) == -1
