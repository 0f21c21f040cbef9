"""Markdown: a report as people read it, and the numbered contract from the rows themselves."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

from gotasks.conformance.outcome import Result
from gotasks.conformance.report import PROFILES, SUITE, Report, RowReport, Verdict, names
from gotasks.conformance.row import Level, Row

_SIGNS = {Result.PASS: "✓", Result.FAIL: "✗ fail", Result.UNSUPPORTED: "-"}

_LEVELS = {
    Level.REQUIRED: "Required: for every broker",
    Level.ENGINE: "Engine: for every broker, with workers that run on it",
    Level.CAPABILITY: "Capabilities: for brokers that claim them",
    Level.DURABILITY: "Durability: for brokers that promise to outlive a restart or a kill of their server",
}


def render(report: Report) -> str:
    """The report as a page."""
    how = "quick check, which certifies nothing" if report.quick else "check"
    server = f", server {report.server}" if report.server else ""
    made = (
        f"Made by `gotasks check` ({how}), suite {report.suite}, gotasks {report.gotasks}, "
        f"Python {report.python}, {report.began}, {report.seconds:g} s, seed {report.seed}."
    )
    whose = f"{report.distribution} {report.distribution_version}".strip() or "no distribution"
    lines = [
        f"# {report.url.partition(':')[0]}://: conformance",
        "",
        made,
        f"Broker: `{report.broker}` of {whose}{server}. URL: `{report.url}`.",
        "",
        "| profile | verdict |",
        "| --- | --- |",
        *(f"| {name} | {_verdict(report.verdicts[name])} |" for name in PROFILES),
        *(f"| {name} | {_verdict(verdict)} |" for name, verdict in report.beside().items()),
        "",
        f"Rows: {report.counts()}.",
        "",
        *_not_applicable(report),
        f"Capabilities: {', '.join(report.capabilities) or 'none'}.",
        "",
        "| limit | value |",
        "| --- | --- |",
        *(f"| {name} | {'none' if value is None else value} |" for name, value in report.limits.items()),
        "",
        "| row | | what holds | seconds | |",
        "| --- | --- | --- | ---: | --- |",
        *(_row(row) for row in report.rows),
    ]
    return "\n".join(lines) + "\n"


def contract(rows: Mapping[str, Row]) -> str:
    """The numbered contract: what each row wants, in the order of the suite."""
    what = (
        f"What the conformance suite {SUITE} shows of a broker. `gotasks/broker.py` is the contract in prose; "
        "[Writing a broker](../writing-a-broker.md) leads through it. `make conformance` makes this page from the rows."
    )
    patience = (
        "What takes time is given it: the end of a lease shows within `limits.recovery` and 2 s, somebody who waits is "
        "woken within 1 s, and what has to come at all comes within 20 s."
    )
    lines = ["# The contract, row by row", "", what, "", patience]
    for level, title in _LEVELS.items():
        lines += ["", f"## {title}"]
        for row in rows.values():
            if row.level is level:
                lines += ["", f"### {row.id} {row.title}", "", row.text, *_conditions(row)]
    return "\n".join(lines) + "\n"


def explain(row: Row) -> str:
    """What a row wants, for a terminal."""
    return "\n".join(
        [f"{row.id}  {row.title} ({row.level.value})", row.text, *filter(None, _conditions(row))]
    )


def _conditions(row: Row) -> Iterable[str]:
    conditions = []
    if row.needs:
        conditions.append(f"claims {', '.join(names(row.needs))}")
    if row.processes:
        conditions.append("claims SHARED (it works with other processes)")
    if row.durability is not None:
        conditions.append(
            "promises to outlive a kill"
            if row.durability == "kill"
            else "promises to outlive a restart, or more"
        )
    if conditions:
        yield from ("", f"For a broker that {' and '.join(conditions)}.")


def _verdict(verdict: Verdict) -> str:
    if verdict.certified:
        return "**certified**"
    more = f" … and {len(verdict.reasons) - 3} more" if len(verdict.reasons) > 3 else ""
    return _cell("no: " + "; ".join(verdict.reasons[:3]) + more)


def _not_applicable(report: Report) -> list[str]:
    found = report.not_applicable()
    return [f"Not applicable: {_cell('; '.join(found))}.", ""] if found else []


def _row(row: RowReport) -> str:
    figures = ", ".join(f"{name} {value}" for name, value in row.figures.items())
    says = "; ".join(filter(None, [figures, row.reason]))
    sign = _SIGNS.get(row.result, row.result.value)
    return f"| {row.id} | {sign} | {_cell(row.title)} | {row.seconds:.1f} | {_cell(says)} |"


def _cell(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    import sys

    from gotasks.conformance.rows.everything import ROWS

    sys.stdout.write(contract(ROWS))
