"""Results: what was measured, as it is kept in JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

#: The name under which the ceilings of a server stand where others have the name of a peer.
CEILINGS = "ceilings"

#: In which parts of one run may differ.
_FREE = ("date", "rounds", "note")


@dataclass(frozen=True)
class Result:
    """One step of the plan, done: figures by name, or why there are none."""

    round: int
    server: str
    peer: str
    workload: str
    values: Mapping[str, float] = field(default_factory=dict)
    unsupported: str = ""
    error: str = ""
    repeats: int = 0  #: starts of a step beyond its first


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Results:
    """All of one run. `about`: the machine, versions and options, as a reader wants to know them."""

    about: Mapping[str, Any]
    results: list[Result]

    def save(self, path: Path) -> None:
        """Write JSON."""
        text = json.dumps({"about": self.about, "results": [asdict(each) for each in self.results]}, indent=1)
        path.write_text(text + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote."""
        read = json.loads(path.read_text())
        return cls(read["about"], [Result(**each) for each in read["results"]])

    @classmethod
    def together(cls, parts: Sequence[Results]) -> Results:
        """Parts that were measured one after the other: of other servers, of other workloads, or further rounds.

        Raises ValueError if they don't fit together.
        """
        about: dict[str, Any] = {}
        for part in parts:
            for name, value in part.about.items():
                if isinstance(value, Mapping):
                    about[name] = {**about.get(name, {}), **value}
                elif name in _FREE or about.setdefault(name, value) == value:
                    about[name] = value
                else:
                    raise ValueError(f"these results aren't of one run: {name} is {about[name]} and {value}")
        found: list[Result] = []
        rounds: dict[tuple[str, str, str], int] = {}
        for part in parts:
            before = dict(rounds)
            for each in part.results:
                what = each.server, each.peer, each.workload
                number = before.get(what, 0) + each.round
                found.append(replace(each, round=number))
                rounds[what] = max(rounds.get(what, 0), number)
        if len(parts) > 1:
            about["rounds"] = max(rounds.values(), default=0)
        return cls(about, found)

    def of(self, server: str, peer: str) -> list[Result]:
        """All of one peer on one server, or of its ceilings."""
        return [each for each in self.results if (each.server, each.peer) == (server, peer)]

    def by_round(self, server: str, peer: str, figure: str) -> dict[int, float]:
        """A figure in each round that has it."""
        return {each.round: each.values[figure] for each in self.of(server, peer) if figure in each.values}

    def spread(self, server: str, peer: str, figure: str) -> Spread | None:
        """A figure over all rounds; None if no round has it."""
        values = list(self.by_round(server, peer, figure).values())
        return Spread.of(values) if values else None

    def ratio(self, server: str, ours: str, theirs: str, figure: str, *, lower: bool) -> Spread | None:
        """How many times better `ours` is than `theirs`: formed in each round, then over the rounds."""
        one, other = self.by_round(server, ours, figure), self.by_round(server, theirs, figure)
        pairs = [(one[number], other[number]) for number in one if number in other]
        # What is 0, such as the CPU time of a worker that does nothing, has no ratio.
        ratios = [b / a if lower else a / b for a, b in pairs if a and b]
        return Spread.of(ratios) if ratios else None

    def servers(self) -> list[str]:
        """In the order of the run."""
        return list(dict.fromkeys(each.server for each in self.results))

    def peers(self, server: str) -> list[str]:
        """In the order of the run, without the ceilings."""
        found = dict.fromkeys(each.peer for each in self.results if each.server == server)
        return [peer for peer in found if peer != CEILINGS]

    def failures(self) -> list[Result]:
        """What went wrong."""
        return [each for each in self.results if each.error]
