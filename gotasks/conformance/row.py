"""Row: one numbered behaviour of the contract, and the function that shows whether a broker has it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal

from gotasks.broker import Capability

if TYPE_CHECKING:
    from gotasks.conformance.scene import Scene

Test = Callable[["Scene"], None]

#: No capability.
NOTHING = Capability(0)

_ID = re.compile(r"[A-Z]{3}-[0-9]{2}")


class Level(str, Enum):
    """For whom a row is."""

    REQUIRED = "required"  #: for every broker
    ENGINE = "engine"  #: for every broker, with workers that run on it
    CAPABILITY = "capability"  #: for those that claim one
    DURABILITY = "durability"  #: for those that promise to outlive a restart or a kill of their server


@dataclass(frozen=True, kw_only=True)
class Row:
    """One numbered behaviour. Ids are public API: they stay, and none is used again."""

    id: str
    title: str  #: what holds, in a few words
    text: str  #: given, when, then
    test: Test
    level: Level
    needs: Capability  #: the row is for brokers that claim all of these
    processes: bool  #: works with other processes, so it's only for brokers with SHARED
    durability: Literal["restart", "kill"] | None  #: only for brokers that promise at least this much
    timeout: float  #: seconds after which it has failed
    unproven: str | None  #: why no faulty broker shows that it can fail


def row(
    row_id: str,
    *,
    needs: Capability = NOTHING,
    engine: bool = False,
    processes: bool = False,
    durability: Literal["restart", "kill"] | None = None,
    timeout: float = 60.0,
    unproven: str | None = None,
    title: str | None = None,
) -> Callable[[Test], Test]:
    """Register the function below as the row `row_id`.

    Its name, with spaces, is the title unless one is given; its docstring is the contract: given, when, then. A row
    with `needs` is a capability row, one with `durability` a durability row, one with `engine` an engine row, any
    other is required.
    """

    def register(test: Test) -> Test:
        if not _ID.fullmatch(row_id) or row_id in ROWS:
            raise ValueError(f"{row_id} isn't an id, or is taken")
        if durability is not None:
            level = Level.DURABILITY
        elif needs:
            level = Level.CAPABILITY
        else:
            level = Level.ENGINE if engine else Level.REQUIRED
        ROWS[row_id] = Row(
            id=row_id,
            title=title or test.__name__.replace("_", " "),
            text=inspect.cleandoc(test.__doc__ or ""),
            test=test,
            level=level,
            needs=needs,
            processes=processes,
            durability=durability,
            timeout=timeout,
            unproven=unproven,
        )
        return test

    return register


#: All rows by id. Filled by importing `gotasks.conformance.rows.everything`.
ROWS: dict[str, Row] = {}
