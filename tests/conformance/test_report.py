"""The report and its verdicts: what may be certified, and what gives a changed report away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from gotasks.broker import Capability
from gotasks.conformance.adapter import MemoryAdapter
from gotasks.conformance.checking import check, report_of
from gotasks.conformance.claims import Claims
from gotasks.conformance.markdown import contract, render
from gotasks.conformance.outcome import Outcome, Result
from gotasks.conformance.report import InvalidReport, Report, verify
from gotasks.conformance.row import NOTHING, Level
from gotasks.conformance.rows.everything import ROWS
from gotasks.errors import ConfigurationError


def report(
    results: dict[str, Result] | None = None,
    *,
    quick: bool = False,
    durability: str = "kill",
    without: Capability = NOTHING,
    leave_out: Sequence[str] = (),
) -> Report:
    """A report of a broker that can do everything, in which every row has passed but for `results`."""
    outcomes = [
        Outcome(row=row, result=(results or {}).get(row.id, Result.PASS), reason="made up")
        for row in ROWS.values()
        if row.id not in leave_out
    ]
    adapter = MemoryAdapter("memory://")
    made = report_of(adapter, Claims.of(adapter), outcomes, quick=quick)
    # Nothing here has transactions, so no row has shown them.
    names = [str(each.name) for each in Capability if each not in (without | Capability.TRANSACTIONAL)]
    limits = {**made.limits, "durability": durability}
    return msgspec.structs.replace(made, capabilities=names, limits=limits).sealed()


def certified(made: Report) -> list[str]:
    return [name for name, verdict in made.verdicts.items() if verdict.certified]


def a_row(level: Level, *, beside: bool = False) -> str:
    special = Capability.HANDOFF | Capability.TRANSACTIONAL
    return next(row.id for row in ROWS.values() if row.level is level and bool(row.needs & special) is beside)


def test_all_passed() -> None:
    assert certified(report()) == ["core", "durable", "full"]


@pytest.mark.parametrize(
    "level,left",
    [
        (Level.REQUIRED, []),
        (Level.ENGINE, []),
        (Level.DURABILITY, ["core"]),
        (Level.CAPABILITY, ["core", "durable"]),
    ],
)
def test_a_needed_row_that_was_not_run_means_no_verdict(level: Level, left: list[str]) -> None:
    row_id = a_row(level)
    made = report({row_id: Result.NOT_RUN})

    assert certified(made) == left
    assert f"{row_id} not-run: made up" in made.verdicts["full"].reasons


@pytest.mark.parametrize("result", [Result.FAIL, Result.WAIVED])
@pytest.mark.parametrize("level", list(Level))
def test_any_failure_rules_everything_out(level: Level, result: Result) -> None:
    """Also that of a capability which a lower profile doesn't need: it was claimed, so the broker lies."""
    assert certified(report({a_row(level): result})) == []


def test_a_row_that_is_missing_counts_as_not_run() -> None:
    row_id = a_row(Level.REQUIRED)
    made = report(leave_out=[row_id])

    assert certified(made) == []
    assert len(made.rows) == len(ROWS)
    assert f"{row_id} not-run: it wasn't asked for" in made.verdicts["core"].reasons


def test_what_is_not_for_a_broker_does_not_hinder_core() -> None:
    unsupported = {
        row.id: Result.UNSUPPORTED for row in ROWS.values() if row.level in (Level.REQUIRED, Level.ENGINE)
    }
    del unsupported[a_row(Level.REQUIRED)]

    assert "core" in certified(report(unsupported))


def test_nothing_passed_is_no_proof() -> None:
    assert certified(report(dict.fromkeys(ROWS, Result.UNSUPPORTED))) == []


def test_durable_needs_the_promise() -> None:
    made = report(durability="restart")

    assert certified(made) == ["core"]
    assert "limits.durability is 'restart', not 'kill'" in made.verdicts["durable"].reasons


def test_full_needs_every_capability_but_those_beside_it() -> None:
    assert certified(report(without=Capability.HANDOFF | Capability.TRANSACTIONAL)) == [
        "core",
        "durable",
        "full",
    ]
    made = report(without=Capability.PRIORITY)
    assert certified(made) == ["core", "durable"]
    assert "PRIORITY isn't claimed" in made.verdicts["full"].reasons


def test_a_claim_that_no_row_has_shown_counts_for_nothing() -> None:
    rows = [row.id for row in ROWS.values() if Capability.HANDOFF in row.needs]
    made = report(dict.fromkeys(rows, Result.NOT_RUN))

    assert certified(made) == []
    assert "HANDOFF is claimed, and no row has shown it" in made.verdicts["core"].reasons


def test_a_row_beside_full_does_not_hinder_it() -> None:
    assert "full" in certified(report({a_row(Level.CAPABILITY, beside=True): Result.UNSUPPORTED}))


def test_a_capability_beside_full_has_a_verdict_of_its_own() -> None:
    """It needs core, and every row that is for it; one that isn't for this broker needn't be shown."""
    row_id = a_row(Level.CAPABILITY, beside=True)
    assert list(report(without=Capability.HANDOFF).beside()) == []
    for result, shown in ((Result.PASS, True), (Result.UNSUPPORTED, True), (Result.NOT_RUN, False)):
        made = report({row_id: result})
        assert {name: verdict.certified for name, verdict in made.beside().items()} == {"HANDOFF": shown}
        assert ("| HANDOFF | **certified** |" in render(made)) is shown
    core = a_row(Level.REQUIRED)
    assert report({core: Result.NOT_RUN}).beside()["HANDOFF"].reasons == [f"{core} not-run: made up"]


def test_transactions_that_were_shown_are_certified() -> None:
    made = msgspec.structs.replace(report(), capabilities=["TRANSACTIONAL", *report().capabilities]).sealed()
    assert certified(made) == ["core", "durable", "full"]
    assert made.beside()["TRANSACTIONAL"].certified
    rows = [
        msgspec.structs.replace(row, result=Result.FAIL) if row.id == "TXN-02" else row for row in made.rows
    ]
    failed = msgspec.structs.replace(made, rows=rows).sealed()
    assert not failed.beside()["TRANSACTIONAL"].certified
    assert certified(failed) == []


def test_a_quick_check_certifies_nothing() -> None:
    made = report(quick=True)

    assert certified(made) == []
    assert made.hindrances("full") == []


def test_a_part_certifies_nothing() -> None:
    made = check("memory://", quick=False, only=["CKP-01"])

    assert certified(made) == []
    assert made.count(Result.PASS) == 1
    assert made.count(Result.NOT_RUN) == len(ROWS) - 1


def test_no_row_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="no row is named CKP-99"):
        check("memory://", only=["CKP-99"])


def changed(**fields: Any) -> Callable[[Report], Report]:
    return lambda made: msgspec.structs.replace(made, **fields)


def without_a_row(made: Report) -> Report:
    return msgspec.structs.replace(made, rows=made.rows[1:])


def other_title(made: Report) -> Report:
    first = msgspec.structs.replace(made.rows[0], title="something else")
    return msgspec.structs.replace(made, rows=[first, *made.rows[1:]])


def pardoned(made: Report) -> Report:
    rows = [msgspec.structs.replace(row, result="pass") for row in made.rows]
    return msgspec.structs.replace(made, rows=rows)


def test_verify_takes_what_was_written() -> None:
    made = report()

    assert verify(made.to_json(), ROWS) == made


@pytest.mark.parametrize(
    "change", [changed(seconds=1.0), changed(server="another"), pardoned, without_a_row], ids=range(4)
)
def test_verify_sees_a_change(change: Callable[[Report], Report]) -> None:
    made = report({a_row(Level.REQUIRED): Result.FAIL})

    with pytest.raises(InvalidReport, match="digest"):
        verify(change(made).to_json(), ROWS)


def test_verify_judges_itself() -> None:
    made = report({a_row(Level.REQUIRED): Result.FAIL})
    forged = msgspec.structs.replace(made, verdicts=report().verdicts, digest="")
    sealed = forged.sealed()
    seal = msgspec.structs.replace(forged, digest="").sealed().digest

    assert certified(sealed) == []  # sealing judges
    from gotasks.conformance import report as module

    resealed = msgspec.structs.replace(forged, digest=module._digest(forged))
    assert resealed.digest != seal
    with pytest.raises(InvalidReport, match="verdicts don't follow"):
        verify(resealed.to_json(), ROWS)


@pytest.mark.parametrize("change", [without_a_row, other_title])
def test_verify_knows_its_rows(change: Callable[[Report], Report]) -> None:
    with pytest.raises(InvalidReport, match=r"its .*(rows|that of the suite)"):
        verify(change(report()).sealed().to_json(), ROWS)


def test_verify_does_not_judge_by_rows_that_it_does_not_know() -> None:
    with pytest.raises(InvalidReport, match=r"made by the suite 9\.9"):
        verify(msgspec.structs.replace(report(), suite="9.9").sealed().to_json(), ROWS)


@pytest.mark.parametrize(
    "change", [(b'"pass"', b'"splendid"'), (b'"seed":', b'"seal": 1, "seed":')], ids=["result", "field"]
)
def test_verify_knows_what_a_report_is_made_of(change: tuple[bytes, bytes]) -> None:
    with pytest.raises(InvalidReport, match="isn't a report"):
        verify(report().to_json().replace(*change, 1), ROWS)


def test_verify_wants_a_reason_for_what_was_not_passed() -> None:
    made = report({a_row(Level.CAPABILITY, beside=True): Result.UNSUPPORTED})
    rows = [msgspec.structs.replace(row, reason="") for row in made.rows]
    with pytest.raises(InvalidReport, match="doesn't say why"):
        verify(msgspec.structs.replace(made, rows=rows).sealed().to_json(), ROWS)


def test_verify_says_which_suite_reads_another_schema() -> None:
    with pytest.raises(InvalidReport, match="its schema is 2"):
        verify(msgspec.structs.replace(report(), schema=2).sealed().to_json(), ROWS)


@pytest.mark.parametrize("document", [b"", b"{}", b"\xff", b"[1]", b'{"schema": "1"}'])
def test_verify_refuses_what_is_no_report(document: bytes) -> None:
    with pytest.raises(InvalidReport, match="isn't a report"):
        verify(document, ROWS)


def test_the_page_has_every_row_and_no_secret() -> None:
    made = report()
    page = render(made)

    assert all(f"| {row_id} |" in page for row_id in ROWS)
    assert "| full | **certified** |" in page


def test_the_contract_has_every_row() -> None:
    page = contract(ROWS)

    for row in ROWS.values():
        assert f"### {row.id} {row.title}\n" in page
        assert row.text, row.id
