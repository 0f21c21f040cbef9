"""Measure: what the demo wants to know of a file. Read in chunks, so that no file is too large."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec

_CHUNK = 1024 * 1024


class Measure(msgspec.Struct, frozen=True):
    """Counted as `wc` does: words between ASCII spaces, lines by their ends."""

    words: int
    lines: int
    checksum: str  #: SHA-256

    @classmethod
    def of(cls, path: Path, *, unwanted: Callable[[], bool] = lambda: False) -> Measure:
        """That of a file. Ends early, with what it has, once `unwanted()`. Raises OSError."""
        words = lines = 0
        digest = hashlib.sha256()
        inside = False  # a word that the last chunk began goes on in the next
        with path.open("rb") as file:
            while not unwanted() and (chunk := file.read(_CHUNK)):
                digest.update(chunk)
                lines += chunk.count(b"\n")
                words += len(chunk.split()) - (inside and not chunk[:1].isspace())
                inside = not chunk[-1:].isspace()
        return cls(words, lines, digest.hexdigest())


def kind(path: Path) -> str:
    """Is "binary" if a NUL is near the file's beginning, else "text". Raises OSError."""
    with path.open("rb") as file:
        return "binary" if b"\0" in file.read(8192) else "text"
