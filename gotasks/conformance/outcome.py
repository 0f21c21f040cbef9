"""Outcome: how one row came out on one broker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from gotasks.conformance.row import Row


class Result(str, Enum):
    """How a row came out. None of them is silent."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    UNSUPPORTED = "unsupported"  #: it isn't for this broker, and what isn't claimed was seen to be refused
    NOT_RUN = "not-run"  #: the adapter lacks a hook, or something isn't installed
    WAIVED = "waived"  #: it failed, as the adapter's waivers say


#: How a reason begins of a row that the adapter, or a limit, says there is nothing to do for.
NOT_APPLICABLE = "not applicable: "


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one row."""

    row: Row
    result: Result
    reason: str = ""  #: a sentence; empty for a pass
    seconds: float = 0.0
    figures: Mapping[str, float | int | str] = field(default_factory=dict)
    error: BaseException | None = None

    @classmethod
    def left_out(cls, row: Row) -> Outcome:
        """Of a row that wasn't asked for."""
        return cls(row=row, result=Result.NOT_RUN, reason="it wasn't asked for")
