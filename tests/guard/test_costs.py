"""The comparison itself: what fails, and what is said."""

from __future__ import annotations

import pytest

from tests.guard.costs import keep


def compared(value: float) -> list[str]:
    """What is said of a cost whose budget is 10. Raises where the test shall fail."""
    said: list[str] = []
    keep("a server", {"a way": {"commands": value}}, {"a way": {"commands": 10}}, said.append)
    return said


@pytest.mark.parametrize("value", [9.1, 10, 10.9])
def test_what_is_near_its_budget_passes_without_a_word(value: float) -> None:
    assert compared(value) == []


def test_what_costs_more_than_a_tenth_more_fails_and_says_what_to_do() -> None:
    with pytest.raises(
        AssertionError, match=r"a server, a way: 11\.1 commands a task, where 10 are in the budget"
    ) as failed:
        compared(11.1)
    assert "tests/guard/budgets.py" in str(failed.value)


def test_what_has_become_cheaper_is_told() -> None:
    assert compared(8.9) == [
        "a server, a way: 8.9 commands a task instead of 10. Lower it in tests/guard/budgets.py"
    ]


@pytest.mark.parametrize("budgets", [{}, {"a way": {}}, {"a way": {"commands": 1.0, "bytes": 1.0}}])
def test_what_is_counted_has_a_budget_and_the_other_way_round(budgets: dict[str, dict[str, float]]) -> None:
    with pytest.raises(AssertionError, match="has to have what is counted on a server"):
        keep("a server", {"a way": {"commands": 1.0}}, budgets, print)
