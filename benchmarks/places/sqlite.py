"""A folder for a SQLite file: emptied before each measurement, removed at the end."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.protocol import reply

#: The folder under the one that the caller names.
NAME = "gotasks-bench-sqlite"


def answer(command: Mapping[str, Any]) -> Mapping[str, Any]:
    """`url`: sqlite:///FOLDER. Returns the URL of a file in a folder of our own, which is empty, or is gone."""
    folder = Path(command["url"].removeprefix("sqlite:///")).expanduser() / NAME
    shutil.rmtree(folder, ignore_errors=True)
    if command["do"] == "reset":
        folder.mkdir(parents=True)
    return {"url": f"sqlite:///{folder / 'tasks.db'}", "version": _version()}


def _version() -> str:
    import sqlite3

    return sqlite3.sqlite_version


if __name__ == "__main__":
    reply(answer)
