"""Expect: how a row says what must hold. `assert` won't do: `python -O` removes it, and it explains nothing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple


class Site(NamedTuple):
    """One expectation in the source of a row."""

    file: str
    line: int


class Nonconformance(AssertionError):
    """A broker doesn't do what the contract says. The message is a sentence for its author.

    `site`: the expectation that failed; None if a word of `Scene` found it.
    """

    def __init__(self, sentence: str, site: Site | None = None) -> None:
        super().__init__(sentence)
        self.site = site


def expect(holds: object, sentence: str) -> None:
    """Raise Nonconformance with `sentence`, which says what was seen instead, unless it holds."""
    if not holds:
        _fail(sentence)


def expect_equal(actual: object, expected: object, what: str) -> None:
    """Raise Nonconformance unless the two are equal: "`what` is `actual`, not `expected`"."""
    if actual != expected:
        _fail(f"{what}: {_short(actual)}, not {_short(expected)}")


def difference(actual: Sequence[str], expected: Sequence[str]) -> str:
    """How two long lists of ids differ, in a few words; empty if they don't."""
    have, want = Counter(actual), Counter(expected)
    missing, more = sum((want - have).values()), sum((have - want).values())
    words = [f"{missing} are missing"] if missing else []
    words += [f"{more} are too many"] if more else []
    pairs = enumerate(zip(actual, expected))  # noqa: B905 - one may be longer
    place = next((index for index, (one, other) in pairs if one != other), None)
    if place is not None:
        words.append(f"number {place + 1} is {actual[place]}, not {expected[place]}")
    return ", ".join(words)


@contextmanager
def deleted(site: Site) -> Iterator[None]:
    """As if the expectation at this place weren't there: how the suite proves that each one is needed."""
    _deleted.add(site)
    try:
        yield
    finally:
        _deleted.discard(site)


_deleted: set[Site] = set()


def _fail(sentence: str) -> None:
    caller = sys._getframe(2)  # noqa: SLF001 - which expectation it is
    site = Site(caller.f_code.co_filename, caller.f_lineno)
    if site not in _deleted:
        raise Nonconformance(sentence, site)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]} … {text[-80:]}"
