"""BrokerSuite: the conformance suite in a plug-in's own tests, run by pytest.

# tests/test_conformance.py
from gotasks.conformance import BrokerSuite

class TestConformance(BrokerSuite):
broker_url = "acme://localhost:1234/test"
"""

from __future__ import annotations

import os
from typing import ClassVar

import pytest

from gotasks.conformance.adapter import Adapter
from gotasks.conformance.adapters import adapter_for
from gotasks.conformance.checker import run_row
from gotasks.conformance.checking import report_of
from gotasks.conformance.claims import Claims
from gotasks.conformance.outcome import Outcome, Result
from gotasks.conformance.rows.everything import ROWS


class BrokerSuite:
    """One test a row, named like it (`test_row[CKP-03]`), and one for the whole. Subclass it as `Test…`.

    Give `broker_url`, or an `adapter` if a URL doesn't say enough. A row that isn't for this broker is skipped, and the
    reason says what was seen; `test_profile` fails unless every row that `profile` needs was run and passed.
    """

    broker_url: ClassVar[str] = ""
    adapter: ClassVar[Adapter | None] = None
    profile: ClassVar[str] = "core"
    #: Small numbers: for every push. GOTASKS_CONFORMANCE_QUICK=1 does the same.
    quick: ClassVar[bool] = False

    _outcomes: ClassVar[dict[str, Outcome]]

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        cls._outcomes = {}

    @pytest.mark.parametrize("row_id", list(ROWS))
    def test_row(self, row_id: str) -> None:
        """One row."""
        cls = type(self)
        quick = cls.quick or os.environ.get("GOTASKS_CONFORMANCE_QUICK", "0") not in ("", "0")
        outcome = run_row(ROWS[row_id], self._adapter(), quick=quick)
        cls._outcomes[row_id] = outcome
        if outcome.result is Result.FAIL:
            pytest.fail(f"{row_id} {ROWS[row_id].title}\n{ROWS[row_id].text}\n\n{outcome.reason}")
        elif outcome.result is not Result.PASS:
            pytest.skip(f"{outcome.result.value}: {outcome.reason}")

    def test_profile(self) -> None:
        """The whole: every row that the profile needs."""
        cls = type(self)
        missing = [row_id for row_id in ROWS if row_id not in cls._outcomes]
        if missing:
            pytest.fail(
                f"{len(missing)} rows weren't run in this process ({missing[0]} …): run the class as a whole "
                "(with pytest-xdist: --dist loadfile)"
            )
        adapter = self._adapter()
        report = report_of(adapter, Claims.of(adapter), list(cls._outcomes.values()))
        if reasons := report.hindrances(cls.profile):
            pytest.fail(f"{report.url} doesn't reach the profile {cls.profile}:\n" + "\n".join(reasons))

    def _adapter(self) -> Adapter:
        if self.adapter is not None:
            return self.adapter
        if not self.broker_url:
            pytest.fail("give the class a broker_url, or an adapter")
        return adapter_for(self.broker_url)
