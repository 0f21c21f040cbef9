"""Faulty brokers: each has one fault, and each must be caught by the rows named with it.

    @faulty("CKP-01")
    class UpdateOtherKey(Faulty):
        \"\"\"Writes checkpoints where nobody reads them.\"\"\"

        def checkpoint(self, writes):
            self.trip()
            return frozenset()

Most are a `MemoryBroker` with a method of its own. Rows that need a network or other processes meet it behind
`kit.served`, which makes a server of it. A fault of a *client* (it repeats a request blindly, it has no timeout) is a
`ServedBroker` with a method of its own: `@faulty("NET-01") class BlindRetry(FaultyClient)`. A fault of the *engine* is
a context manager that patches it: `@engine_fault("FTL-07")`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from gotasks.broker import Broker
from gotasks.conformance.kit.served import OpenMemory, ServedBroker

#: Environment: the file that exists once a fault has fired, and the engine's fault of this process.
TRIPPED, ENGINE_FAULT = "GOTASKS_CONFORMANCE_TRIPPED", "GOTASKS_CONFORMANCE_FAULT"

C = TypeVar("C", bound=type[Broker])
Patch = Callable[[], AbstractContextManager[None]]


def trip() -> None:
    """Say that the fault has really fired: one that never does proves nothing."""
    path = os.environ.get(TRIPPED)
    if path is not None:
        Path(path).touch()


class Faulty(OpenMemory):
    """A memory broker with a fault."""

    @staticmethod
    def trip() -> None:
        trip()


class FaultyClient(ServedBroker):
    """A client of a good broker, itself with a fault."""

    #: What is served to it.
    served: ClassVar[type[OpenMemory]] = OpenMemory

    @staticmethod
    def trip() -> None:
        trip()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault, and the rows that must catch it: each of them."""

    name: str
    rows: tuple[str, ...]
    text: str
    broker: type[Broker] | None = None  #: a Faulty or a FaultyClient
    patch: Patch | None = None  #: of the engine


#: All faults by name. Filled by importing `gotasks.conformance.faulty.everything`.
FAULTS: dict[str, Fault] = {}


def faulty(*rows: str) -> Callable[[C], C]:
    """Register the class below as a fault that each of `rows` must catch."""

    def register(cls: C) -> C:
        _add(Fault(name=cls.__name__, rows=rows, text=cls.__doc__ or "", broker=cls))
        return cls

    return register


def engine_fault(*rows: str, name: str | None = None) -> Callable[[Patch], Patch]:
    """Register the context manager below, which patches the engine, as a fault that each of `rows` must catch."""

    def register(patch: Patch) -> Patch:
        _add(Fault(name=name or patch.__name__, rows=rows, text=patch.__doc__ or "", patch=patch))
        return patch

    return register


def _add(fault: Fault) -> None:
    if fault.name in FAULTS:
        raise ValueError(f"two faults are named {fault.name}")
    if not fault.rows or not fault.text:
        raise ValueError(f"{fault.name}: a fault has rows and a docstring")
    FAULTS[fault.name] = fault
