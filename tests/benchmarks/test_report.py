"""Tables and ratios of recorded results."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.report import markdown
from benchmarks.results import CEILINGS, Result, Results, Spread


def recorded() -> Results:
    """Two rounds on a Redis."""
    rates = {"gotasks": (10_000.0, 12_000.0), "dramatiq": (2_000.0, 3_000.0), "huey": (4_000.0, 4_000.0)}
    found = [
        Result(number, "redis", peer, "drain", {"drain": values[number - 1]})
        for number in (1, 2)
        for peer, values in rates.items()
    ]
    for number, ours, theirs in ((1, 1.0, 5.0), (2, 2.0, 5.0)):
        found += [
            Result(number, "redis", "gotasks", "latency", {"latency-p50": ours, "latency-p99": 3.0}),
            Result(number, "redis", "dramatiq", "latency", {"latency-p50": theirs, "latency-p99": 3.0}),
            Result(number, "redis", CEILINGS, CEILINGS, {"SET (S)": 5_000.0}),
            Result(number, "redis", "dramatiq", "bulk", unsupported="enqueues one by one only"),
        ]
    found += [
        Result(1, "redis", "huey", "latency", error="Traceback\nValueError: no"),
        Result(1, "redis", "saq", "drain", error="gone"),
        Result(2, "redis", "dramatiq", "chains", {"chains": 900.0}, repeats=3),
    ]
    return Results({"rounds": 2, "python": "3.11.7", "servers": {"redis": "7.0.15"}}, found)


def row(first: str, page: str | None = None, *, after: str = "") -> list[str]:
    """The cells behind the first one, in the first such row after some text."""
    page = markdown(recorded()) if page is None else page
    lines = page[page.index(after) :].splitlines()
    (line, *_) = [line for line in lines if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_figures_are_medians_with_their_range() -> None:
    page = markdown(recorded())
    assert page.startswith("## redis 7.0.15\n")
    assert row("system", page) == [
        "drain, 1 worker /s",
        "3-step chains, steps/s",
        "idle → start p50 ms",
        "p99 ms",
    ]
    assert row("gotasks", page) == [
        "11\u202f000 (10\u202f000 to 12\u202f000)",
        "",
        "1.50 (1.00 to 2.00)",
        "3.00",
    ]
    assert row("huey 3.5.4 (amo)", page) == ["4\u202f000", "", "", ""]


def test_ratios_are_formed_round_by_round_and_above_one_where_we_are_better() -> None:
    ratios = row("dramatiq 2.2.1", after="Times that gotasks is better")
    assert ratios == ["4.50 × (4.00 to 5.00)", "", "3.75 × (2.50 to 5.00)", "1.00 ×"]  # noqa: RUF001


def test_our_rates_are_multiples_of_the_ceilings() -> None:
    assert row("SET (S)", after="Ceilings") == ["5\u202f000", "2.20 ×"]  # noqa: RUF001


def test_notes_say_what_is_missing_and_what_went_wrong() -> None:
    page = markdown(recorded())
    assert page.count("- dramatiq, bulk: enqueues one by one only.") == 1
    assert "- huey, latency: **failed** in round 1: ValueError: no\n" in page
    assert "- dramatiq, chains: 3 steps started again in round 2." in page
    assert "- huey: no results stored." in page
    assert "| saq" not in page  # it has no figure
    assert "- saq, drain: **failed** in round 1: gone" in page


def test_without_us_there_are_no_ratios() -> None:
    results = recorded()
    theirs = Results(results.about, [each for each in results.results if each.peer != "gotasks"])
    page = markdown(theirs)
    assert "Times that" not in page
    assert row("SET (S)", page, after="Ceilings") == ["5\u202f000"]


def test_a_ratio_needs_both_in_the_same_round_and_no_zero() -> None:
    values = {"gotasks": {1: 0.0, 2: 2.0}, "dramatiq": {1: 1.0, 2: 1.0, 3: 8.0}}
    results = Results(
        {},
        [
            Result(number, "redis", peer, "memory", {"idle-cpu": value})
            for peer, rounds in values.items()
            for number, value in rounds.items()
        ],
    )
    assert results.ratio("redis", "gotasks", "dramatiq", "idle-cpu", lower=True) == Spread(0.5, 0.5, 0.5)
    assert results.ratio("redis", "gotasks", "saq", "idle-cpu", lower=True) is None


def test_what_is_measured_of_gotasks_alone_has_a_table_of_its_own() -> None:
    results = recorded()
    alone = Result(1, "redis", "gotasks", "args-100", {"args-100": 9_000.0})
    page = markdown(Results(results.about, [*results.results, alone]))
    assert "args of 100 B" not in " ".join(row("system", page))
    assert row("drain, args of 100 B /s", page, after="## gotasks alone") == ["9\u202f000"]
    assert "## gotasks alone" not in markdown(results)


def test_parts_of_a_run_come_together() -> None:
    def part(server: str, round_: int, rate: float, **about: object) -> Results:
        return Results(
            {"tasks": 100, "rounds": 1, "date": "one", "servers": {server: "1"}, **about},
            [Result(round_, server, "gotasks", "drain", {"drain": rate})],
        )

    both = Results.together(
        [part("redis", 1, 10.0), part("sqlite", 1, 1.0), part("redis", 1, 12.0, date="two")]
    )
    assert both.by_round("redis", "gotasks", "drain") == {1: 10.0, 2: 12.0}
    assert both.by_round("sqlite", "gotasks", "drain") == {1: 1.0}
    assert both.about == {"tasks": 100, "rounds": 2, "date": "two", "servers": {"redis": "1", "sqlite": "1"}}


def test_parts_with_other_options_are_no_run() -> None:
    parts = [Results({"tasks": tasks}, []) for tasks in (100, 200)]
    with pytest.raises(ValueError, match="tasks is 100 and 200"):
        Results.together(parts)


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    results = recorded()
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results
    assert [each.peer for each in results.failures()] == ["huey", "saq"]


def test_a_spread_needs_a_value() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(median=2.0, low=1.0, high=3.0)
    assert recorded().spread("redis", "gotasks", "bulk") is None
