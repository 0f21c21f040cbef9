"""The picture: what is drawn, and that a browser can read it."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from benchmarks.chart import svg
from benchmarks.results import Result, Results

_SVG = "{http://www.w3.org/2000/svg}"


def recorded() -> Results:
    """Two servers; on one of them two rounds, and somebody who loses tasks."""
    rates = {
        ("redis", "gotasks"): (10_000.0, 14_000.0),
        ("redis", "dramatiq"): (2_000.0, 2_000.0),
        ("redis", "huey"): (6_000.0, 6_000.0),
        ("sqlite", "gotasks"): (5_000.0, 5_000.0),
    }
    found = [
        Result(number, server, peer, "drain", {"drain": values[number - 1]})
        for (server, peer), values in rates.items()
        for number in (1, 2)
    ]
    found.append(Result(1, "redis", "saq", "drain", error="gone"))
    return Results({"servers": {"redis": "7.0.15"}}, found)


def drawn() -> ET.Element:
    return ET.fromstring(svg(recorded()))  # noqa: S314 - of our own making


def texts(picture: ET.Element) -> list[str]:
    return [each.text or "" for each in picture.iter(f"{_SVG}text")]


def test_bars_are_as_long_as_rates_and_the_best_comes_first() -> None:
    picture = drawn()
    bars = [each for each in picture.iter(f"{_SVG}rect") if "bar" in each.attrib["class"]]
    assert [each.attrib["class"].strip() for each in bars] == ["bar ours", "bar amo", "bar", "bar ours"]
    ours, huey, dramatiq, alone = (float(each.attrib["width"]) for each in bars)
    assert (huey / ours, dramatiq / ours) == pytest.approx((1 / 2, 1 / 6), rel=0.01)
    assert alone > ours  # its group has a scale of its own, and it is the longest there


def test_names_and_rates_are_written_and_who_failed_is_not() -> None:
    written = texts(drawn())
    assert {"Redis 7.0.15", "SQLite", "gotasks", "dramatiq 2.2.1", "12\u202f000", "2\u202f000"} <= set(
        written
    )
    assert not any("saq" in each for each in written)


def test_a_spread_is_drawn_where_there_is_one() -> None:
    (line,) = drawn().iter(f"{_SVG}line")
    assert float(line.attrib["x1"]) < float(line.attrib["x2"])


def test_who_does_not_see_it_hears_the_figures() -> None:
    assert "gotasks 12,000, huey 3.5.4 (amo) 6,000" in drawn().attrib["aria-label"]


def test_without_a_drain_there_is_no_picture() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        svg(Results({}, [Result(1, "redis", "gotasks", "bulk", {"bulk": 1.0})]))
