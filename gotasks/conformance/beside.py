"""Beside: rows in processes of their own, several at a time; most of a row's time is waiting."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace

from gotasks.conformance.adapter import Adapter
from gotasks.conformance.checker import run_row
from gotasks.conformance.outcome import Outcome, Result
from gotasks.conformance.row import Row
from gotasks.conformance.rows.everything import ROWS
from gotasks.errors import ConfigurationError


def run_beside(
    rows: Sequence[Row], adapter: Adapter, *, quick: bool, seed: int, jobs: int
) -> Iterator[Outcome]:
    """Run the rows in `jobs` processes; their outcomes in the order of `rows`.

    Raises ConfigurationError if the adapter can't be pickled.
    """
    try:
        pickle.dumps(adapter)
    except Exception as error:
        raise ConfigurationError(
            f"{type(adapter).__name__} can't be handed to another process ({error}): make it a class of a module, "
            "with plain attributes"
        ) from error
    broken = False
    with pool_of(jobs) as pool:
        running = [(row, pool.submit(_run, row.id, adapter, quick, seed)) for row in rows]
        for row, outcome in running:
            try:
                done = None if broken else replace(outcome.result(), row=row)
            except BrokenProcessPool:
                # A process has died, and with it what the others were doing: from here on each has one of its own.
                broken, done = True, None
            yield done if done is not None else _run_alone(row, adapter, quick=quick, seed=seed)


def _run_alone(row: Row, adapter: Adapter, *, quick: bool, seed: int) -> Outcome:
    with pool_of(1) as pool:
        try:
            return replace(pool.submit(_run, row.id, adapter, quick, seed).result(), row=row)
        except BrokenProcessPool:
            return Outcome(row=row, result=Result.FAIL, reason="it ended the process that ran it")


@contextmanager
def pool_of(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """So many processes, which end with this one however it ends; what hasn't begun at the end is dropped."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with, initargs=(os.getpid(),))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with(parent: int) -> None:
    """Have this process end when its parent has, however that ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="orphan-watch", daemon=True).start()


def _run(row_id: str, adapter: Adapter, quick: bool, seed: int) -> Outcome:  # noqa: FBT001 - pickled, by place
    # An error need not be one to pickle; its sentence is in the reason.
    return replace(run_row(ROWS[row_id], adapter, quick=quick, seed=seed), error=None)
