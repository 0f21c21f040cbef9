"""Costs: how much of something a task takes, and the comparison with its budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping

#: What is counted, by name, for each task. All of it is exact or nearly so on any machine, however busy.
Costs = Mapping[str, float]

#: By so much a cost may exceed its budget.
MARGIN = 0.10

_BUDGETS = "tests/guard/budgets.py"
_TOO_DEAR = "A task has become dearer by more than a tenth:"
_WHAT_TO_DO = f"""\
Look for what came in with this change: a call, a statement, a field, one round trip for each task where there was
one for all. If it is worth its price, write the new figure into {_BUDGETS}, and say what it buys."""


def keep(
    where: str, measured: Mapping[str, Costs], budgets: Mapping[str, Costs], say: Callable[[str], None]
) -> None:
    """Fail where a cost is more than MARGIN over its budget, or there is no such budget, or nothing for one.

    `say` what has become so much cheaper that its budget guards nothing.
    """
    assert {way: set(costs) for way, costs in measured.items()} == {
        way: set(costs) for way, costs in budgets.items()
    }, f"{_BUDGETS} has to have what is counted on {where}, and nothing else: {dict(measured)}"
    over = []
    for way, costs in measured.items():
        for what, value in costs.items():
            budget = budgets[way][what]
            text = f"{where}, {way}: {value:.4g} {what} a task"
            if value > budget * (1 + MARGIN):
                over.append(f"{text}, where {budget:.4g} are in the budget")
            elif value < budget * (1 - MARGIN):
                say(f"{text} instead of {budget:.4g}. Lower it in {_BUDGETS}")
    assert not over, "\n".join([_TOO_DEAR, *over, _WHAT_TO_DO])
