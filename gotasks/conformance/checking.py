"""Checking: the suite as a library call. `check("redis://127.0.0.1:6379/0").verdicts["core"].certified`"""

from __future__ import annotations

import platform
import random
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

import msgspec

from gotasks import __version__
from gotasks.broker import BrokerURL
from gotasks.conformance.adapter import Adapter
from gotasks.conformance.adapters import adapter_for
from gotasks.conformance.beside import run_beside
from gotasks.conformance.checker import run_row
from gotasks.conformance.claims import Claims
from gotasks.conformance.outcome import Outcome
from gotasks.conformance.redact import redact
from gotasks.conformance.report import Report, RowReport, names, sources
from gotasks.conformance.row import Row
from gotasks.conformance.rows.everything import ROWS
from gotasks.discovery import distribution, installed
from gotasks.errors import ConfigurationError

Progress = Callable[[Outcome], None]


def check(
    target: str | Adapter,
    *,
    quick: bool = False,
    only: Sequence[str] = (),
    seed: int | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Run the suite on a broker: a URL, or an adapter that knows more than a URL says.

    Args:
        quick: every row once, with small numbers. Certifies nothing.
        only: ids of rows, or how they begin (`CKP`). Certifies nothing.
        seed: of all that is random; it's in the report.
        jobs: so many rows at a time, in as many processes. The adapter must be one to pickle, and the program's
            main module one to import (`if __name__ == "__main__":`). None: in this process, one after the other.
        progress: called with each row's outcome, in the thread that called.

    Raises ConfigurationError if the target can't be used or `only` names no row, BrokerUnavailable if nobody answers
    there. What the broker does wrong is in the report. Not thread-safe: rows measure this process's threads, sockets
    and files.
    """
    adapter = adapter_for(target) if isinstance(target, str) else target
    chosen = _chosen(only)
    unknown = [row_id for row_id, link in adapter.waivers.items() if row_id not in ROWS or not link]
    if unknown:
        raise ConfigurationError(
            f"a waiver is for a row, and has a link; not so those of {', '.join(unknown)}"
        )
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    claims = Claims.of(adapter)
    began = datetime.now(timezone.utc)
    running = (
        (run_row(row, adapter, quick=quick, seed=seed) for row in chosen)
        if jobs is None
        else run_beside(chosen, adapter, quick=quick, seed=seed, jobs=jobs)
    )
    outcomes = []
    for outcome in running:
        outcomes.append(outcome)
        if progress is not None:
            progress(outcome)
    return report_of(adapter, claims, outcomes, quick=quick, only=only, seed=seed, began=began)


def report_of(
    adapter: Adapter,
    claims: Claims,
    outcomes: Sequence[Outcome],
    *,
    quick: bool = False,
    only: Sequence[str] = (),
    seed: int = 0,
    began: datetime | None = None,
) -> Report:
    """The report of these outcomes. Rows that are missing count as not run."""
    name, version = _distribution(adapter, claims)
    found = {outcome.row.id: outcome for outcome in outcomes}
    now = datetime.now(timezone.utc)
    return Report(
        suite_sources=sources(),
        gotasks=__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        url=str(BrokerURL(adapter.broker_url)),
        broker=f"{claims.broker.__module__}:{claims.broker.__qualname__}",
        distribution=name,
        distribution_version=version,
        server=redact(claims.server, adapter.broker_url),
        began=(began or now).isoformat(timespec="seconds"),
        seconds=round((now - (began or now)).total_seconds(), 1),
        seed=seed,
        quick=quick,
        only=list(only),
        capabilities=names(claims.capabilities),
        limits=msgspec.to_builtins(claims.limits),
        rows=[_reported(found.get(row.id) or Outcome.left_out(row)) for row in ROWS.values()],
        verdicts={},
    ).sealed()


def _chosen(only: Sequence[str]) -> list[Row]:
    wanted = [each.strip().upper() for each in only]
    for word in wanted:
        if not word or not any(row_id.startswith(word) for row_id in ROWS):
            raise ConfigurationError(f"no row is named {word or 'nothing'}: gotasks check --list names all")
    return [row for row in ROWS.values() if not wanted or row.id.startswith(tuple(wanted))]


def _reported(outcome: Outcome) -> RowReport:
    row = outcome.row
    return RowReport(
        id=row.id,
        level=row.level,
        title=row.title,
        needs=names(row.needs),
        result=outcome.result,
        reason=outcome.reason,
        seconds=round(outcome.seconds, 2),
        figures=dict(outcome.figures),
    )


def _distribution(adapter: Adapter, claims: Claims) -> tuple[str, str]:
    """Name and version of the distribution whose entry point for the URL's scheme is in the package of this class."""
    scheme, package = BrokerURL(adapter.broker_url).scheme, claims.broker.__module__.partition(".")[0]
    for entry in installed():
        if entry.name == scheme and entry.module.partition(".")[0] == package:
            return distribution(entry), entry.dist.version if entry.dist is not None else ""
    return "", ""
