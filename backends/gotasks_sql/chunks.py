"""Chunks: a call is cut into parts of which each fits into one statement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from gotasks_sql.operations import SOME

T = TypeVar("T")

#: Bodies of one statement, in bytes: quoted it has to fit into a packet of 16 MiB, which is MariaDB's default.
MOST_BYTES = 4 * 1024 * 1024


def parts(ids: list[str]) -> Iterator[list[str]]:
    """Parts that aren't too long."""
    return (ids[start : start + SOME] for start in range(0, len(ids), SOME))


def chunks(
    items: Sequence[T], names_of: Callable[[T], Sequence[str | None]], body_of: Callable[[T], bytes]
) -> Iterator[list[T]]:
    """Parts for one statement each: no id and no unique key twice, and not too many bytes."""
    part: list[T] = []
    seen: set[tuple[int, str]] = set()
    size = 0
    for item in items:
        names = {(kind, name) for kind, name in enumerate(names_of(item)) if name is not None}
        length = len(body_of(item))
        if part and (names & seen or size + length > MOST_BYTES):
            yield part
            part, seen, size = [], set(), 0
        part.append(item)
        seen |= names
        size += length
    if part:
        yield part
