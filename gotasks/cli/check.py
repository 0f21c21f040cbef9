"""`gotasks check`: the conformance suite, run on any broker."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gotasks.cli import exits
from gotasks.cli.options import json_option, option
from gotasks.cli.output import note, plain, print_table
from gotasks.errors import ConfigurationError

if TYPE_CHECKING:
    from gotasks.conformance.outcome import Outcome
    from gotasks.conformance.report import Report

#: Reasons of a verdict that are printed.
_MOST = 8

#: As in `gotasks.conformance.report`, which is imported where it's needed: no other command should wait for it.
PROFILES = ("core", "durable", "full")


@click.command(epilog=exits.EPILOG)
@click.argument("url", required=False)
@option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the report, as JSON.",
)
@option(
    "--markdown",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it as a page, too.",
)
@option("--quick", is_flag=True, help="Every row once, with small numbers. Certifies nothing.")
@option("--profile", type=click.Choice(PROFILES), help="End with 1 unless the broker reaches this profile.")
@option(
    "--only", multiple=True, metavar="ROW", help="Only these rows: CKP-03, or CKP for all of them. Repeat it."
)
@option(
    "--adapter",
    metavar="MODULE:CLASS",
    help="An Adapter for this backend; else its own, if it has one.",
)
@option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="So many rows at a time.")
@option("--seed", type=int, help="Of all that is random, to repeat a run.")
@click.option("--list", "listed", is_flag=True, help="List the rows, and run none.")
@click.option(
    "--explain", multiple=True, metavar="ROW", help="Print what a row wants: CKP-03, or CKP for all of them."
)
@click.option(
    "--verify",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="See that a report is whole, unchanged and rightly judged.",
)
@json_option
def check(
    url: str | None,
    *,
    report: Path | None,
    markdown: Path | None,
    quick: bool,
    profile: str | None,
    only: tuple[str, ...],
    adapter: str | None,
    jobs: int,
    seed: int | None,
    listed: bool,
    explain: tuple[str, ...],
    verify: Path | None,
    as_json: bool,
) -> int:
    """Run the conformance suite on the broker at URL, and say what it proves.

    Each row is one numbered behaviour of the contract. It passes, fails, isn't for this broker ("unsupported": what
    it doesn't claim was seen to be refused), couldn't be run ("not-run": the adapter lacks a hook), or is waived.

    Profiles: core (every broker's rows), durable (core, and what was confirmed outlives SIGKILL of the server), full
    (durable, and every capability). If the adapter can make a place of its own on the server, the suite works there
    and leaves nothing behind; else in queues of its own in the place that the URL names.
    """
    if verify is not None:
        if url is not None:
            raise click.UsageError("--verify reads a report and runs nothing: leave the URL out")
        return _verify(verify, markdown, profile, as_json=as_json)
    if explain:
        return _explain(explain)
    if listed:
        return _list()
    if url is None:
        raise click.UsageError("which broker? Name its URL, as in: gotasks check redis://127.0.0.1:6379/0")
    if importlib.util.find_spec("hypothesis") is None:
        raise ConfigurationError(
            "gotasks check needs the 'hypothesis' package: pip install 'gotasks[conformance]'"
        )
    for path in filter(None, (report, markdown)):
        _try_to_write(path)
    from gotasks.conformance.adapters import adapter_for
    from gotasks.conformance.checking import check as run

    with (
        _to_stderr() if as_json else contextlib.nullcontext()
    ):  # a broker that prints must not spoil the document
        found = run(
            adapter_for(url, adapter),
            quick=quick,
            only=only,
            seed=seed,
            jobs=jobs,
            progress=None if as_json else _progress,
        )
    _write(found, report, markdown)
    return _end(found, profile, as_json=as_json)


def _progress(outcome: Outcome) -> None:
    row = outcome.row
    figures = "".join(f"; {name} {value}" for name, value in outcome.figures.items())
    click.echo(f"{row.id}  {outcome.result.value:<11} {row.title} ({outcome.seconds:.1f} s{figures})")
    if outcome.reason:
        click.echo(f"{'':14}{outcome.reason}")


def _end(report: Report, profile: str | None, *, as_json: bool) -> int:
    """Say what the report says, and return the exit code."""
    from gotasks.conformance.outcome import Result

    if as_json:
        click.echo(report.to_json(), nl=False)
    else:
        _summary(report)
    hindered = profile is not None and bool(report.hindrances(profile))
    passed = report.count(Result.PASS) and not report.count(Result.FAIL)
    return exits.OK if passed and not hindered else exits.FAILED


def _summary(report: Report) -> None:
    took = f"{report.seconds:g} s (suite {report.suite}, seed {report.seed})"
    click.echo(plain(f"\n{report.url}: {report.counts()} in {took}"))
    if missing := report.not_applicable():
        click.echo(plain(f"not applicable: {'; '.join(missing)}"))
    said: set[str] = set()
    verdicts = {name: report.verdicts[name] for name in PROFILES}
    for name, verdict in {**verdicts, **report.beside()}.items():
        click.echo(f"{name:<8} {'certified' if verdict.certified else 'not certified'}")
        # A profile has the reasons of the one before it.
        reasons = [each for each in verdict.reasons if each not in said]
        for reason in reasons[:_MOST]:
            click.echo(plain(f"{'':9}{reason}"))
        if len(reasons) > _MOST:
            click.echo(f"{'':9}and {len(reasons) - _MOST} more; --report FILE has all of them")
        said.update(reasons)


@contextlib.contextmanager
def _to_stderr() -> Iterator[None]:
    """What this process and its children write to stdout goes to stderr within the block."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _try_to_write(path: Path) -> None:
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise ConfigurationError(f"{path} can't be written: {error.strerror}") from error


def _write(found: Report, report: Path | None, markdown: Path | None) -> None:
    from gotasks.conformance.markdown import render

    for path, content in ((report, found.to_json()), (markdown, render(found).encode())):
        if path is not None:
            path.write_bytes(content)
            note(f"{path} was written")


def _verify(path: Path, markdown: Path | None, profile: str | None, *, as_json: bool) -> int:
    from gotasks.conformance.report import sources, verify
    from gotasks.conformance.rows.everything import ROWS

    found = verify(path.read_bytes(), ROWS)
    _write(found, None, markdown)
    if not as_json:
        click.echo(plain(f"{path} is whole and unchanged: {found.broker}, {found.began}"))
        if found.suite_sources != sources():
            click.echo("It was made by other sources of the same version of the suite.")
    return _end(found, profile, as_json=as_json)


def _list() -> int:
    from gotasks.conformance.rows.everything import ROWS

    print_table(
        ("row", "level", "what holds"), [(row.id, row.level.value, row.title) for row in ROWS.values()]
    )
    return exits.OK


def _explain(wanted: tuple[str, ...]) -> int:
    from gotasks.conformance.markdown import explain
    from gotasks.conformance.rows.everything import ROWS

    found = [row for row in ROWS.values() if row.id.startswith(wanted)]
    if not found:
        raise ConfigurationError(f"no row is named {', '.join(wanted)}: gotasks check --list names all")
    click.echo("\n\n".join(explain(row) for row in found))
    return exits.OK
