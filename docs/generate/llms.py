"""llms.txt: a list of all pages with what each is about, for programs that read documentation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_INTRODUCTION = """# gotasks

> Background work in Python, as chains of handlers. Progress is saved in the broker after every handler, so a chain
> survives a crash and goes on where it was. The broker is chosen by a URL: SQLite, PostgreSQL, MySQL, MariaDB, Redis,
> RabbitMQ, memory, or a plug-in.

Each link is the Markdown of a page; the pages for people have the same names without `.md`.
"""


def index(config: str, read: Callable[[str], str]) -> str:
    """The file, from mkdocs.yml. `read` gives the text of a page by its name in docs/."""
    return "\n".join([_INTRODUCTION, *_lines(config, read)]) + "\n"


def pages(config: str) -> list[str]:
    """The pages of the nav in mkdocs.yml, in their order."""
    return [page for _, _, page in _entries(config) if page]


def _entries(config: str) -> Iterator[tuple[int, str, str]]:
    """The nav's lines: depth, title, page (empty for a section)."""
    _, _, nav = config.partition("\nnav:\n")
    for spaces, title, page in re.findall(r"^( *)- ([^:\n]+):(?: (\S+\.md))?$", nav, re.MULTILINE):
        yield len(spaces) // 4, title, page


def _lines(config: str, read: Callable[[str], str]) -> Iterator[str]:
    for depth, title, page in _entries(config):
        if page:
            yield f"- [{title}]({page}): {_about(title, read(page))}"
        elif depth == 0:
            yield f"\n## {title}\n"


def _about(title: str, text: str) -> str:
    """The first sentence behind the title, in one line and without links."""
    first = next(each for each in text.split("\n\n")[1:] if each and each[0].isalnum())
    if first.startswith("Made by `gotasks check`"):
        return f"The conformance suite's report on {title}."
    flat = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(first.split())).replace("**", "")
    return re.split(r"(?<=\.) (?=[A-Z`])", flat, maxsplit=1)[0]
