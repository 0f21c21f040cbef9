"""The pages: prose into which tables are put, between two marks, and the picture beside it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.chart import svg
from benchmarks.report import markdown, own_table
from benchmarks.results import Results

BEGIN = "<!-- Made from the results by `python -m benchmarks`. -->"
END = "<!-- Made until here. -->"


def publish(folder: Path, results: Results) -> None:
    """Renew all that is made from results in a folder of pages. Raises ValueError if a page has no place for it."""
    for name, text in published(folder, results).items():
        (folder / name).write_text(text)


def published(folder: Path, results: Results) -> dict[str, str]:
    """The files that `publish` writes, by name."""
    tables = {"benchmarks.md": markdown(results), "scaling.md": own_table(results)}
    pages = {name: renewed((folder / name).read_text(), table) for name, table in tables.items()}
    return {**pages, "benchmarks.svg": svg(results)}


def renewed(text: str, tables: str) -> str:
    """A page with these tables in the place of those that are there. Raises ValueError if it lacks the marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(
            f"the page has no place for tables: put {BEGIN} and {END} into it, each in a line of its own"
        )
    return f"{before}{BEGIN}\n\n{tables.strip()}\n\n{END}{after}"
