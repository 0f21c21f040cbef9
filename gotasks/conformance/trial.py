"""Trial: one row against one fault, or on one good broker. Runs in processes of the matrix, several at a time."""

from __future__ import annotations

import ast
import atexit
import inspect
import os
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gotasks.broker import Broker, Capability
from gotasks.conformance.adapter import Adapter, MemoryAdapter
from gotasks.conformance.adapters import adapter_for
from gotasks.conformance.checker import run_row
from gotasks.conformance.expect import Site, deleted
from gotasks.conformance.faulty import ENGINE_FAULT, TRIPPED, Fault, FaultyClient
from gotasks.conformance.faulty.everything import FAULTS
from gotasks.conformance.kit.by_connection import ByConnectionAdapter
from gotasks.conformance.kit.served import OpenMemory, ServedBroker
from gotasks.conformance.kit.served_adapter import ServedAdapter
from gotasks.conformance.kit.tight import Tight
from gotasks.conformance.kit.transactional import Transactional, TransactionalAdapter
from gotasks.conformance.outcome import Outcome, Result
from gotasks.conformance.row import Row
from gotasks.conformance.rows.everything import ROWS

#: Brokers without a fault, on which every row must pass. ("tight, handoff" is one, too; it takes its time.)
GOOD = (
    "memory",
    "memory, handoff",
    "served",
    "served, handoff",
    "by connection",
    "by connection, handoff",
    "tight",
    "transactional",
    "transactional, one by one",
    "transactional, served",
)


#: A fault has so many runs to fire.
_ATTEMPTS = 3

_IN_MEMORY: dict[str, type[Broker] | None] = {"memory": None, "tight": Tight}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a row came out."""

    row_id: str
    on: str  #: the fault, or the good broker
    result: Result
    reason: str
    seconds: float
    tripped: bool = False  #: the fault has really fired

    @property
    def caught(self) -> bool:
        return self.tripped and self.result is Result.FAIL


def try_fault(name: str, row_id: str, without: Site | None = None) -> Trial:
    """Run the row on the faulty broker: in this process if the row can do that, else behind a server.

    `without`: an expectation that is deleted. Some faults are races: a run in which the fault didn't fire proves
    nothing, and is repeated.
    """
    for _ in range(_ATTEMPTS - 1):
        trial = _try_fault(name, row_id, without)
        if trial.tripped:
            return trial
    return _try_fault(name, row_id, without)


def _try_fault(name: str, row_id: str, without: Site | None) -> Trial:
    fault, row, began = FAULTS[name], ROWS[row_id], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gotasks-matrix-") as directory, ExitStack() as stack:
        mark = Path(directory) / "tripped"
        stack.enter_context(deleted(without) if without is not None else nullcontext())
        stack.enter_context(_variable(TRIPPED, str(mark)))
        if fault.patch is not None:
            stack.enter_context(_variable(ENGINE_FAULT, fault.name))
            stack.enter_context(fault.patch())
        outcome = _run(fault, row)
        return _trial(outcome, fault.name, began, tripped=mark.exists())


def try_good(name: str, row_id: str) -> Trial:
    """Run the row on a good broker: one of GOOD, or a URL."""
    began = time.monotonic()
    adapter: Adapter
    kind, _, how = name.partition(", ")
    query = {"handoff": "handoff=true", "one by one": "batch=1"}.get(how, "")
    row, url = ROWS[row_id], f"memory://?{query}".rstrip("?")
    if kind == "served":
        adapter = _shared(OpenMemory, query)
    elif kind == "by connection":
        if row.processes:  # it claims SHARED, and is so within this process
            return _trial(Outcome(row=row, result=Result.UNSUPPORTED), name, began)
        adapter = ByConnectionAdapter(url)
    elif kind == "transactional":
        if Capability.TRANSACTIONAL not in row.needs:  # there it's a memory broker like the others
            return _trial(Outcome(row=row, result=Result.UNSUPPORTED), name, began)
        adapter = _shared(Transactional) if how == "served" else TransactionalAdapter(url)
    elif kind in _IN_MEMORY:
        adapter = MemoryAdapter(url)
        adapter.broker_class = _IN_MEMORY[kind]
    else:
        adapter = adapter_for(name)
    return _trial(run_row(row, adapter, quick=True), name, began)


@cache
def _shared(of: type[Broker], query: str = "") -> ServedAdapter:
    """A good broker behind a server that all rows in this process share, as they do a real one. It ends with us."""
    adapter = ServedAdapter(of=of, query=query)
    adapter.__enter__()
    atexit.register(adapter.__exit__)
    return adapter


def needed_by(row_id: str, site: Site) -> str | None:
    """The fault that the row no longer catches without this expectation; None if there is none."""
    meant = [name for name, fault in FAULTS.items() if row_id in fault.rows]
    return next((name for name in meant if not try_fault(name, row_id, site).caught), None)


def sites(row: Row) -> list[Site]:
    """Where the function of a row, and those inside it, call `expect` or `expect_equal`."""
    lines, first = inspect.getsourcelines(row.test)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    file = inspect.getsourcefile(row.test) or ""
    return sorted(
        Site(file, first + node.lineno - 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("expect", "expect_equal")
    )


def _run(fault: Fault, row: Row) -> Outcome:
    client = fault.broker is not None and issubclass(fault.broker, ServedBroker)
    if not client and not row.processes:
        transactional = fault.broker is not None and issubclass(fault.broker, Transactional)
        adapter = (TransactionalAdapter if transactional else MemoryAdapter)("memory://")
        adapter.broker_class = fault.broker or OpenMemory
        outcome = run_row(row, adapter, quick=True)
        if outcome.result is not Result.UNSUPPORTED:
            return outcome
    with _served(fault) as served:
        return run_row(row, served, quick=True)


def _trial(outcome: Outcome, on: str, began: float, *, tripped: bool = False) -> Trial:
    return Trial(
        row_id=outcome.row.id,
        on=on,
        result=outcome.result,
        reason=outcome.reason,
        seconds=time.monotonic() - began,
        tripped=tripped,
    )


@contextmanager
def _served(fault: Fault) -> Iterator[Adapter]:
    if fault.broker is not None and issubclass(fault.broker, ServedBroker):
        of = fault.broker.served if issubclass(fault.broker, FaultyClient) else OpenMemory
        adapter = ServedAdapter(of=of, client=fault.broker)
    else:
        adapter = ServedAdapter(of=fault.broker or OpenMemory)
    with adapter:
        yield adapter


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
