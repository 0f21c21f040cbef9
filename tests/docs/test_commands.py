"""Every `gotasks …` in a page is a command that there is, with options that it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.docs.commands import Command, commands
from tests.docs.pages import PAGES

ALL = [(page, command) for page in PAGES for command in commands(page)]


def test_there_are_some() -> None:
    assert len(ALL) > 80


@pytest.mark.parametrize("page", sorted({page for page, _ in ALL}))
def test_click_knows_them(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orders.jsonl").touch()  # which one of them reads
    for name in [each for each in os.environ if each.startswith("GOTASKS_")]:
        monkeypatch.delenv(name)
    for where, command in ALL:
        if where == page:
            try:
                command.parse()
            except Exception as error:
                raise AssertionError(f"{page}:{command.line}: gotasks {' '.join(command.words)}") from error


@pytest.mark.parametrize("line", [["wurker"], ["worker", "--no-such"], ["enqueue"], ["worker", "-q", "a:0"]])
def test_what_is_wrong_is_found(line: list[str]) -> None:
    with pytest.raises(Exception, match=r"wurker|no-such|Missing|limit"):
        Command(1, line).parse()
