"""The pages, and what is in them: blocks of code, commands, headings, links."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

#: By their names from the root of the repository.
PAGES = [
    page.relative_to(ROOT).as_posix()
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
]

_FENCE = re.compile(r"^( *)```(\w*)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)

#: Before a block that can't run, with the reason.
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*$")


class Block(NamedTuple):
    """A block of code."""

    line: int  #: of its first line, in the page
    language: str  #: empty: a shell
    title: str
    code: str
    not_run: str  #: why it can't be run


def text(page: str) -> str:
    """The whole page."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> Iterator[Block]:
    """All blocks, in their order."""
    whole = text(page)
    for found in _FENCE.finditer(whole):
        _, language, info, code = found.groups()
        title = re.search(r'title="([^"]*)"', info)
        reason = _NOT_RUN.search(whole[: found.start()])
        yield Block(
            line=whole[: found.start()].count("\n") + 2,
            language=language,
            title=title[1] if title else "",
            code=textwrap.dedent(code),
            not_run=reason[1] if reason else "",
        )


def prose(page: str) -> str:
    """The page without its blocks."""
    return _FENCE.sub("", text(page))


def anchors(page: str) -> set[str]:
    """What a link may point to. A heading that the site and a forge make different anchors of has none."""
    found = set()
    for heading in re.findall(r"^#+ +(.+?)\s*$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
        site = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_only).strip().lower())
        forge = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        if site == forge:
            found.add(site)
    return found
