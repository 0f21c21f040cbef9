"""The conformance suite: any broker can prove that it keeps chains safe.

Three ways to run it, with the same rows: `gotasks check URL`, `check(URL)`, and a `BrokerSuite` in a plug-in's tests.
"""

from typing import TYPE_CHECKING, Any

from gotasks.conformance.adapter import (
    Adapter,
    EmbeddedAdapter,
    EmbeddedServer,
    MissingHook,
    NotApplicable,
    Savepoint,
    Server,
    Transaction,
)
from gotasks.conformance.report import Report

if TYPE_CHECKING:
    from gotasks.conformance.checking import check
    from gotasks.conformance.suite import BrokerSuite

__all__ = [
    "Adapter",
    "BrokerSuite",
    "EmbeddedAdapter",
    "EmbeddedServer",
    "MissingHook",
    "NotApplicable",
    "Report",
    "Savepoint",
    "Server",
    "Transaction",
    "check",
]


def __getattr__(name: str) -> Any:
    # Rows, pytest and hypothesis only where they are wanted: a backend imports this package for `Adapter` alone.
    if name == "BrokerSuite":
        from gotasks.conformance.suite import BrokerSuite

        return BrokerSuite
    if name == "check":
        from gotasks.conformance.checking import check

        return check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
