"""Importing this module registers all rows, a module a topic, in the order in which people read them."""

from importlib import import_module

from gotasks.conformance.row import ROWS

MODULES = (
    "delivery",
    "waiting",
    "order",
    "batches",
    "leases",
    "recovery",
    "deaths",
    "writes",
    "checkpoints",
    "sweeps",
    "concurrency",
    "payloads",
    "names",
    "counters",
    "records",
    "delay",
    "due",
    "priority",
    "unique",
    "keys",
    "cancel",
    "browse",
    "shown",
    "moves",
    "handoff",
    "transactions",
    "callers",
    "capabilities",
    "network",
    "closing",
    "threads",
    "forks",
    "clocks",
    "durability",
    "servers",
    "chains",
    "retries",
    "workers",
    "crashes",
    "doubt",
    "fatal",
    "garbage",
    "lapses",
    "traces",
    "sizes",
    "machine",
)

for _module in MODULES:
    import_module(f"gotasks.conformance.rows.{_module}")

__all__ = ["MODULES", "ROWS"]
