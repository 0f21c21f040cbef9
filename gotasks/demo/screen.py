"""Screen: what the demo shows. A bar where somebody looks at it, plain lines elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text


class Row(NamedTuple):
    """One line of the closing table."""

    name: str
    value: float
    note: str = ""
    good: bool | None = None  #: None: nothing that can be good or bad


class Screen:
    """One run's output. With `as_json` the table goes to stdout as JSON, and all else to stderr."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._json = as_json
        self._console = Console(stderr=as_json, highlight=False)

    def say(self, text: str, style: str = "") -> None:
        """One line."""
        self._console.print(Text(text, style=style), soft_wrap=not self._console.is_terminal)

    @contextmanager
    def progress(self, total: int) -> Iterator[Callable[[int], None]]:
        """Gives a function that is told how many tasks are settled."""
        if not self._console.is_terminal:
            yield self._quarters(total)
            return
        columns = (TextColumn("  tasks"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task("", total=total)
            yield lambda done: bar.update(task, completed=done)

    def table(self, rows: Sequence[Row]) -> None:
        """The closing table."""
        if self._json:
            # Not through rich, which would break long lines.
            sys.stdout.write(json.dumps({row.name.replace(" ", "_"): row.value for row in rows}) + "\n")
            return
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_column(style="dim", overflow="fold")
        for row in rows:
            number = (
                f"{row.value:,.0f}" if row.value == int(row.value) or row.value >= 100 else f"{row.value:.2f}"
            )
            style = {None: "", True: "green", False: "bold red"}[row.good]
            table.add_row(Text(row.name), Text(number, style=style), Text(row.note))
        self._console.print()
        self._console.print(table)
        self._console.print()

    def _quarters(self, total: int) -> Callable[[int], None]:
        shown = 0

        def update(done: int) -> None:
            nonlocal shown
            if (quarter := done * 4 // total) > shown:
                shown = quarter
                self.say(f"  {done} of {total} tasks")

        return update
