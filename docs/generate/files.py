"""Files: everything under docs/ that is made, by its name there."""

from __future__ import annotations

from pathlib import Path

from docs.generate import brokers, commands, llms

DOCS = Path(__file__).parents[1]
CONFIG = DOCS.parent / "mkdocs.yml"


def made() -> dict[str, str]:
    """What `python -m docs.generate` writes."""
    command_line = commands.page()
    choosing = brokers.renewed((DOCS / "choosing.md").read_text(encoding="utf-8"), DOCS / "benchmarks.json")
    pages = {"reference/cli.md": command_line, "choosing.md": choosing}

    def read(name: str) -> str:
        return pages.get(name) or (DOCS / name).read_text(encoding="utf-8")

    return {**pages, "llms.txt": llms.index(CONFIG.read_text(encoding="utf-8"), read)}


def renew(docs: Path = DOCS) -> None:
    """Write all of it."""
    for name, text in made().items():
        (docs / name).write_text(text, encoding="utf-8")


def stale(docs: Path = DOCS) -> list[str]:
    """Those that aren't there, or say something else."""
    return [
        name
        for name, text in made().items()
        if not (docs / name).is_file() or (docs / name).read_text(encoding="utf-8") != text
    ]
