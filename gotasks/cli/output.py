"""Output: JSON for programs, tables and lines for people."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    click.echo(json.dumps(value, indent=2))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
) -> None:
    """Print a table; `right` names the columns whose cells stand on the right. Nothing is cut off in a pipe."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        # Only the last column gives way on a narrow terminal: an id that was cut is of no use.
        last = column == columns[-1] and column not in right
        table.add_column(
            column, justify="right" if column in right else "left", no_wrap=not last, overflow="fold"
        )
    for row in rows:
        table.add_row(*[Text(plain(str(cell))) for cell in row])
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    Console(width=width, markup=False, highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty()).print(
        table
    )


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one pair a line; a value of several lines is indented."""
    pairs = [(name, plain(str(value))) for name, value in fields]
    width = max(len(name) for name, _ in pairs) + 2
    for name, value in pairs:
        first, *more = value.rstrip().splitlines() or [""]
        click.echo(f"{name:<{width}}{first}".rstrip())
        for line in more:
            click.echo(f"{'':<{width}}{line}".rstrip())


def compact(value: Any) -> str:
    """JSON on one line, for people."""
    return json.dumps(value, ensure_ascii=False)


def plain(text: str) -> str:
    """Text that can't steer a terminal: control characters but newline and tab are shown as escapes."""
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode()
        for each in text
    )


def first_line(text: str, size: int = 200) -> str:
    """The first line, cut after `size` characters."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= size else line[: size - 1] + "…"


def note(text: str) -> None:
    """Say something beside the output: on stderr."""
    click.echo(text, err=True)
