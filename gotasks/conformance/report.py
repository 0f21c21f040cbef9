"""Report: what a check has seen, as one JSON document that can be verified, and the verdict that follows from it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gotasks.broker import Capability
from gotasks.conformance.outcome import NOT_APPLICABLE, Result
from gotasks.conformance.row import Level, Row
from gotasks.errors import GotasksError

#: Version of the document's form.
SCHEMA = 1

#: Version of the suite. A row that is added or becomes stricter raises the second number, one that goes the first.
SUITE = "1.0"


class InvalidReport(GotasksError):
    """A report isn't what it claims to be."""


class RowReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row's outcome."""

    id: str
    level: Level
    title: str
    needs: list[str]  #: capabilities
    result: Result
    reason: str
    seconds: float
    figures: dict[str, float | int | str]


class Verdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds of one profile."""

    certified: bool
    reasons: list[str]  #: why not; empty if certified


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a check has seen. `rows` has every row of the suite; `digest` covers all the rest."""

    schema: int = SCHEMA
    suite: str = SUITE
    suite_sources: str  #: SHA-256 of the suite's own files
    gotasks: str
    python: str
    platform: str
    url: str  #: without secrets
    broker: str  #: module:Class
    distribution: str
    distribution_version: str
    server: str  #: what the server says of its version; empty if the adapter can't ask
    began: str  #: RFC 3339, UTC
    seconds: float
    seed: int
    quick: bool
    only: list[str]  #: the rows that were asked for; empty: all
    capabilities: list[str]
    limits: dict[str, Any]
    rows: list[RowReport]
    verdicts: dict[str, Verdict]
    digest: str = ""

    def sealed(self) -> Report:
        """The same with its verdicts and its digest."""
        judged = msgspec.structs.replace(self, verdicts=judge(self), digest="")
        return msgspec.structs.replace(judged, digest=_digest(judged))

    def to_json(self) -> bytes:
        """The document."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    def hindrances(self, profile: str) -> list[str]:
        """Why the broker doesn't reach this profile, leaving aside that a quick check certifies nothing."""
        return judge(msgspec.structs.replace(self, quick=False))[profile].reasons

    def beside(self) -> dict[str, Verdict]:
        """The verdict on each capability that is claimed and belongs to no profile, by its name.

        It needs `core`, and every row that is for it and for this broker.
        """
        core, found = self.verdicts["core"].reasons, {}
        for name in [each for each in self.capabilities if each in _BESIDE]:
            rows = [row for row in self.rows if name in row.needs]
            reasons = _once([*core, *_unshown_of(rows)])
            found[name] = Verdict(certified=not reasons, reasons=reasons)
        return found

    def count(self, result: Result) -> int:
        """How many rows came out like that."""
        return sum(each.result is result for each in self.rows)

    def counts(self) -> str:
        """How many rows came out how, in words."""
        return ", ".join(f"{count} {each.value}" for each in Result if (count := self.count(each)))

    def not_applicable(self) -> list[str]:
        """What the adapter, or a limit, says there isn't, with the number of rows that were left out for it."""
        reasons = [
            row.reason.removeprefix(NOT_APPLICABLE)
            for row in self.rows
            if row.result is Result.UNSUPPORTED and row.reason.startswith(NOT_APPLICABLE)
        ]
        return [f"{reason} ({count})" for reason, count in Counter(reasons).most_common()]


#: The profiles, from the least on. Each includes the one before it.
PROFILES = ("core", "durable", "full")

#: Reported beside the profiles: no broker can have HANDOFF and be without it, and few have transactions.
_BESIDE = {str(Capability.TRANSACTIONAL.name), str(Capability.HANDOFF.name)}

_FULL = [str(each.name) for each in Capability if each.name not in _BESIDE]


def judge(report: Report) -> dict[str, Verdict]:
    """The verdict per profile, from the outcomes alone."""
    common = _common_reasons(report)
    if report.only:  # that the others weren't run needn't be said for each of them
        return {name: Verdict(certified=False, reasons=_once(common)) for name in PROFILES}
    core = common + _unmet(report, {Level.REQUIRED, Level.ENGINE})
    durable = core + _durability_reasons(report)
    missing = [name for name in _FULL if name not in report.capabilities]
    full = durable + [f"{name} isn't claimed" for name in missing]
    full += [_unshown(row) for row in _of_full(report) if row.result is not Result.PASS]
    found = {"core": core, "durable": durable, "full": full}
    return {name: Verdict(certified=not reasons, reasons=_once(reasons)) for name, reasons in found.items()}


def _common_reasons(report: Report) -> list[str]:
    """What rules every profile out."""
    reasons = []
    if report.quick:
        reasons.append("a quick check certifies nothing")
    if report.only:
        reasons.append("only some rows were asked for")
    if not any(row.result is Result.PASS for row in report.rows):
        reasons.append("no row has passed")
    # Whatever a row is about: a broker that doesn't do what it claims, or does what it doesn't claim, can't be trusted.
    bad = (Result.FAIL, Result.WAIVED)
    reasons += [_unshown(row) for row in report.rows if row.result in bad]
    if not report.only:
        shown = {name for row in report.rows if row.result is Result.PASS for name in row.needs}
        unshown = [name for name in report.capabilities if name not in shown]
        reasons += [f"{name} is claimed, and no row has shown it" for name in unshown]
    return reasons


def _unshown(row: RowReport) -> str:
    return f"{row.id} {row.result.value}: {row.reason}"


def _unmet(report: Report, levels: set[Level]) -> list[str]:
    """Needed rows that weren't shown: each was neither passed nor seen to be not for this broker."""
    return _unshown_of([row for row in report.rows if row.level in levels])


def _unshown_of(rows: Sequence[RowReport]) -> list[str]:
    return [_unshown(row) for row in rows if row.result not in (Result.PASS, Result.UNSUPPORTED)]


def _durability_reasons(report: Report) -> list[str]:
    if report.limits.get("durability") != "kill":
        return [f"limits.durability is {report.limits.get('durability')!r}, not 'kill'"]
    # A row for a capability that isn't claimed isn't needed; one that is has to be passed.
    return [
        _unshown(row)
        for row in report.rows
        if row.level is Level.DURABILITY
        and set(row.needs) <= set(report.capabilities)
        and row.result is not Result.PASS
    ]


def _of_full(report: Report) -> list[RowReport]:
    return [row for row in report.rows if row.level is Level.CAPABILITY and not _BESIDE & set(row.needs)]


def _once(reasons: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(reasons))


def verify(document: bytes, rows: Mapping[str, Row]) -> Report:
    """The report in this document. Raises InvalidReport unless it is whole, unchanged and judged rightly.

    It must have been made by the version of the suite that is installed here, whose rows it has to have. That nobody
    made it up can't be seen: the digest has no secret.
    """
    try:
        report = msgspec.json.decode(document, type=Report)
    except msgspec.MsgspecError as error:
        raise InvalidReport(f"this isn't a report of gotasks check: {error}") from None
    if report.schema != SCHEMA:
        raise InvalidReport(
            f"its schema is {report.schema}; this suite reads {SCHEMA}: use the suite {report.suite}"
        )
    if report.suite != SUITE:
        raise InvalidReport(
            f"it was made by the suite {report.suite}, whose rows this one ({SUITE}) doesn't know: verify it with that"
        )
    if report.digest != _digest(report):
        raise InvalidReport("it was changed after it was written: its digest doesn't fit")
    if report.verdicts != judge(report):
        raise InvalidReport("its verdicts don't follow from its rows")
    _compare(report, rows)
    return report


def _compare(report: Report, rows: Mapping[str, Row]) -> None:
    found = {row.id: row for row in report.rows}
    if len(found) != len(report.rows):
        raise InvalidReport("it has a row twice")
    if found.keys() != rows.keys():
        raise InvalidReport(
            f"its rows aren't those of the suite {SUITE}: {', '.join(sorted(found.keys() ^ rows.keys()))}"
        )
    for row_id, row in found.items():
        if row.result is not Result.PASS and not row.reason:
            raise InvalidReport(f"its {row_id} is {row.result.value} and doesn't say why")
        if (row.level, row.title, row.needs) != (
            rows[row_id].level,
            rows[row_id].title,
            names(rows[row_id].needs),
        ):
            raise InvalidReport(f"its {row_id} isn't that of the suite {SUITE}")


def names(capabilities: Capability) -> list[str]:
    """The names of capabilities, in the order of the contract."""
    return [str(each.name) for each in Capability if each in capabilities]


def sources() -> str:
    """SHA-256 of the files of the suite, so that two reports of one version can be told apart."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _digest(report: Report) -> str:
    return hashlib.sha256(
        msgspec.json.encode(msgspec.structs.replace(report, digest=""), order="sorted")
    ).hexdigest()
