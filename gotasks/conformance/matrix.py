"""Matrix: the proof that the suite can fail. Rows against faulty brokers: good ones pass, each bad one is caught.

python -m gotasks.conformance.matrix                       # the whole proof; prints killed/total
python -m gotasks.conformance.matrix --rows CKP-01,DLV     # a part of it
python -m gotasks.conformance.matrix --expectations 10     # is each expectation of ten required rows needed?
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from gotasks.conformance.beside import pool_of
from gotasks.conformance.faulty.everything import FAULTS
from gotasks.conformance.outcome import Result
from gotasks.conformance.row import Level
from gotasks.conformance.rows.everything import ROWS
from gotasks.conformance.trial import GOOD, Trial, needed_by, sites, try_fault, try_good


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the proof; 0 if it holds."""
    parser = argparse.ArgumentParser(
        prog="python -m gotasks.conformance.matrix",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", help="only these rows, by id or the beginning of one, comma-separated")
    parser.add_argument("--faults", help="only these faults, comma-separated")
    parser.add_argument(
        "--expectations",
        type=int,
        metavar="N",
        help="delete each expectation of N required rows, or of N of --rows",
    )
    parser.add_argument("--seed", type=int, help="which rows --expectations draws")
    parser.add_argument("--no-baseline", action="store_true", help="leave the good brokers out")
    parser.add_argument("--also", action="append", default=[], metavar="URL", help="one more good broker")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="so many trials at a time (default: 1)"
    )
    options = parser.parse_args(arguments)
    rows, faults = _chosen(ROWS, options.rows, prefix=True), _chosen(FAULTS, options.faults)
    with pool_of(options.jobs) as pool:
        if options.expectations is not None:
            return _expectations(
                pool, rows, options.expectations, options.seed, named=options.rows is not None
            )
        problems = [] if options.no_baseline else _baselines(pool, rows, options.also)
        whole = not (options.rows or options.faults)
        return _proof(pool, rows, faults, problems, whole=whole)


def _baselines(pool: ProcessPoolExecutor, rows: Collection[str], also: Sequence[str]) -> list[str]:
    problems = []
    trials = [pool.submit(try_good, name, row_id) for row_id in rows for name in (*GOOD, *also)]
    for trial in _results(trials):
        if trial.result in (Result.FAIL, Result.NOT_RUN):
            problems.append(f"{trial.row_id} on the good broker {trial.on!r}: {trial.reason}")
            _say(problems[-1])
    return problems


def _proof(
    pool: ProcessPoolExecutor,
    rows: Collection[str],
    faults: Collection[str],
    problems: list[str],
    *,
    whole: bool,
) -> int:
    catches: dict[str, int] = dict.fromkeys(rows, 0)
    survivors: dict[str, list[str]] = {}
    trials = [
        pool.submit(try_fault, name, row_id)
        for name in faults
        for row_id in FAULTS[name].rows
        if row_id in catches
    ]
    for trial in _results(trials):
        survived = survivors.setdefault(trial.on, [])
        if trial.caught:
            catches[trial.row_id] += 1
            _say(f"{trial.on:<28} {trial.row_id}  caught in {trial.seconds:.1f} s: {trial.reason[:200]}")
        else:
            why = trial.result.value if trial.tripped else f"it never fired ({trial.result.value})"
            survived.append(f"{trial.on} isn't caught by {trial.row_id}: {why} {trial.reason}")
            _say(survived[-1])
    problems += [each for survived in survivors.values() for each in survived]
    problems += [
        f"{each.name} names {row}, which is no row"
        for each in FAULTS.values()
        for row in each.rows
        if row not in ROWS
    ]
    if whole:
        problems += [
            f"{row_id} catches no faulty broker, and doesn't say why"
            for row_id, count in catches.items()
            if not count and ROWS[row_id].unproven is None
        ]
    for problem in problems:
        _say(f"PROBLEM {problem}")
    killed = sum(not survived for survived in survivors.values())
    proven = sum(bool(count) for count in catches.values())
    _say(f"faulty brokers killed: {killed}/{len(survivors)}; rows that caught one: {proven}/{len(catches)}")
    return 1 if problems else 0


def _expectations(
    pool: ProcessPoolExecutor, rows: Collection[str], count: int, seed: int | None, *, named: bool
) -> int:
    """Delete each expectation of some rows in turn: the matrix must turn red, or it isn't needed.

    They are drawn from the required ones, or from all that were `named`.
    """
    seed = random.SystemRandom().randrange(10_000) if seed is None else seed
    proven = [each for each in rows if not ROWS[each].unproven]
    chosen = proven if named else [each for each in proven if ROWS[each].level is Level.REQUIRED]
    drawn = random.Random(seed).sample(chosen, min(count, len(chosen)))
    _say(f"seed {seed}: {', '.join(drawn)}")
    searches = [
        (row_id, site, pool.submit(needed_by, row_id, site))
        for row_id in drawn
        for site in sites(ROWS[row_id])
    ]
    spare = 0
    for row_id, site, search in searches:
        survivor = search.result()
        spare += survivor is None
        place = f"{row_id} without {Path(site.file).name}:{site.line}"
        _say(f"{place}: red, {survivor} survives" if survivor else f"{place}: still green")
    _say(f"expectations deleted: {len(searches)}; still green without: {spare}")
    return 1 if spare else 0


def _results(trials: Sequence[Future[Trial]]) -> Iterator[Trial]:
    for trial in trials:
        yield trial.result()


def _chosen(known: Collection[str], wanted: str | None, *, prefix: bool = False) -> list[str]:
    if wanted is None:
        return list(known)
    words = [each.strip() for each in wanted.split(",")]
    return [each for each in known if each in words or (prefix and each.startswith(tuple(words)))]


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is a program's output


if __name__ == "__main__":
    sys.exit(main())
