"""Tables that are put into pages, and the pages that are in this repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.page import BEGIN, END, publish, published, renewed
from benchmarks.protocol import ROOT
from benchmarks.results import Result, Results

_DOCS = ROOT / "docs"


def test_tables_take_the_place_of_those_before(tmp_path: Path) -> None:
    for name in ("benchmarks.md", "scaling.md"):
        (tmp_path / name).write_text(f"# Prose\n\n{BEGIN}\n\nold\n\n{END}\n\nMore prose\n")
    values = {"drain": ("drain", 1234.0), "args-100": ("args-100", 900.0)}
    publish(
        tmp_path,
        Results(
            {}, [Result(1, "redis", "gotasks", work, {name: rate}) for work, (name, rate) in values.items()]
        ),
    )
    assert "<svg" in (tmp_path / "benchmarks.svg").read_text()
    for name in ("benchmarks.md", "scaling.md"):
        page = (tmp_path / name).read_text()
        assert "old" not in page
        assert "| 1\u202f234 |" in page
        assert page.startswith(f"# Prose\n\n{BEGIN}\n\n")
        assert page.endswith(f"\n\n{END}\n\nMore prose\n")


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for tables"):
        renewed(f"# Prose\n\n{BEGIN}\n", "new")


@pytest.mark.parametrize("name", ["benchmarks.md", "scaling.md", "benchmarks.svg"])
def test_what_is_published_comes_from_the_results_beside_it(name: str) -> None:
    """`python -m benchmarks --from-json docs/benchmarks.json --docs docs` renews it."""
    results = Results.load(_DOCS / "benchmarks.json")
    assert published(_DOCS, results)[name] == (_DOCS / name).read_text()
