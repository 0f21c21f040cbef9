"""Importing this module registers all faults; they stand in modules named like those of the rows."""

from importlib import import_module

from gotasks.conformance.faulty import FAULTS
from gotasks.conformance.rows.everything import MODULES

for _module in MODULES:
    import_module(f"gotasks.conformance.faulty.{_module}")

__all__ = ["FAULTS"]
