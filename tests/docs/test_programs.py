"""The programs in README.md and docs/ run as they stand, page by page.

- A block with a file's name as its title is written there, and can be imported by what follows; pytest runs test_*.py.
- Any other Python block is a program. What a comment says behind `print(…)` has to be printed, and so has a block
  with the title "output" that follows.
- `gotasks worker MODULE:APP` with a module of the page whose tasks are in SQLite starts a worker for the rest of the
  page, and other commands with `--app MODULE:APP` are run; a comment "ends with 1" is the exit code. The rest is
  parsed: see test_commands.py.
- `<!-- not run: the reason -->` before a block says that it can't be run.
- docs/writing-a-broker.md quotes files and shows signatures: see tests/unit/test_writing_a_broker.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import PAGES, Block, blocks

RUN_PAGE = Path(__file__).with_name("run_page.py")

#: Has tests of its own.
QUOTES = "docs/writing-a-broker.md"

#: What these pages' programs print, beside what comments say.
PRINTED = {
    "README.md": ["order 1 is on its way"],
    "docs/brokers/sql.md": ["order 1 is on its way"],
    "docs/transactions.md": ["order 1 is on its way"],
}


def runnable(page: str) -> list[Block]:
    """The blocks that are run, and the shell's."""
    return [block for block in blocks(page) if block.language in ("python", "text", "") and not block.not_run]


WITH_PROGRAMS = [
    page for page in PAGES if page != QUOTES and any(block.language == "python" for block in runnable(page))
]


def steps(page: str) -> Iterator[list[Any]]:
    """For run_page.py."""
    modules: list[str] = []
    apps: list[str] = []
    for block in runnable(page):
        if block.language == "python" and block.title:
            modules.append(block.title.removesuffix(".py"))
            if (
                'App("sqlite:///' in block.code
            ):  # what would need a server, perhaps somebody's, isn't worked for
                apps.append(modules[-1])
            yield ["file", block.title, block.code]
        elif block.language == "python":
            yield ["program", page, block.line, block.code]
        elif block.language == "":
            for line in block.code.splitlines():
                app = re.match(r"gotasks worker (\w+):app|gotasks .*--app (\w+):app", line)
                if app and (app[1] in apps or app[2] in apps):
                    code = re.search(r"# ends with (\d)", line)
                    yield ["worker", line] if app[1] else ["command", line, int(code[1]) if code else 0]
    if any(module.startswith("test_") for module in modules):
        yield ["tests"]


def expected(page: str) -> Iterator[str]:
    """What the programs say that they print, in their order."""
    for block in runnable(page):
        if block.title == "output":
            yield from block.code.splitlines()
        elif block.language == "python" and not block.title:
            yield from re.findall(r"^ *print\(.*\)  # (.+)$", block.code, re.MULTILINE)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", WITH_PROGRAMS)
def test_programs_run(page: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(RUN_PAGE)],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("GOTASKS_")},
        input=json.dumps(list(steps(page))),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    lines = iter(done.stdout.splitlines())
    for text in expected(page):
        assert any(text == line or text.startswith(f"{line}:") for line in lines if line), (
            f"{text!r} isn't printed, or not in its place:\n{done.stdout}"
        )
    for text in PRINTED.get(page, ()):
        assert text in done.stdout.splitlines()


def test_programs_can_be_run_again() -> None:
    for page in WITH_PROGRAMS:
        for block in runnable(page):
            made = re.findall(r"CREATE TABLE.*", block.code)
            assert all(each.startswith("CREATE TABLE IF NOT EXISTS ") for each in made), (
                f"{page}:{block.line}"
            )


def test_only_files_are_worked_for() -> None:
    assert [kind for kind, *_ in steps("docs/coming-from/celery.md") if kind in ("worker", "command")] == [
        "worker",
        "command",
    ]
    assert {kind for kind, *_ in steps("docs/coming-from/go.md")} <= {"file", "program"}


def test_no_page_is_left_out() -> None:
    assert {"README.md", "docs/start.md", "docs/testing.md", "docs/coming-from/celery.md"} <= set(
        WITH_PROGRAMS
    )
    assert len(WITH_PROGRAMS) > 10
