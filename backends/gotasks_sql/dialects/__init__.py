"""What is done differently on each database, a module each; `base` says what there is to do."""

from __future__ import annotations

from importlib import import_module

from gotasks_sql.address import Address
from gotasks_sql.dialects.base import Dialect

_MODULES = {"sqlite": "sqlite", "postgresql": "postgresql", "mysql": "mysql", "mariadb": "mysql"}


def dialect_of(address: Address) -> Dialect:
    """The dialect for this address. Raises ModuleNotFoundError if its driver isn't installed."""
    module = import_module(f"gotasks_sql.dialects.{_MODULES[address.dialect]}")
    dialect: Dialect = module.DIALECT(address)
    return dialect
