"""docs/conformance/: made by `make conformance` from the rows and from real runs, and not by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from gotasks.conformance.markdown import contract, render
from gotasks.conformance.report import verify
from gotasks.conformance.rows.everything import ROWS

PAGES = Path(__file__).parents[2] / "docs" / "conformance"


def test_the_contract_is_that_of_the_rows() -> None:
    assert (PAGES / "contract.md").read_text() == contract(ROWS), "make conformance"


FULL = {"core", "durable", "full"}


@pytest.mark.parametrize(
    "name,profiles",
    [
        ("memory", {"core"}),
        ("redis", FULL),
        ("sqlite", FULL),
        ("postgresql", FULL),
        ("mariadb", FULL),
        ("rabbitmq", {"core", "durable"}),
        ("rabbitmq-records", FULL),
    ],
)
def test_a_report_is_whole_and_certifies(name: str, profiles: set[str]) -> None:
    report = verify((PAGES / f"{name}.json").read_bytes(), ROWS)

    assert (PAGES / f"{name}.md").read_text() == render(report)
    assert {name for name, verdict in report.verdicts.items() if verdict.certified} == profiles
