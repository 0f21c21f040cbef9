"""Adapters: which adapter a URL gets. A backend brings its own by an entry point, as it brings its broker."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from gotasks.broker import BrokerURL
from gotasks.conformance.adapter import Adapter
from gotasks.errors import ConfigurationError

#: The entry-point group: name = URL scheme, value = a subclass of Adapter.
GROUP = "gotasks.conformance"


def adapter_for(url: str, spec: str | None = None) -> Adapter:
    """The adapter for `url`: the class that `spec` (`module:Class`) names, else the backend's own, else a plain one.

    Raises ConfigurationError if `spec` can't be used.
    """
    if spec is not None:
        return _load(spec)(url)
    scheme = BrokerURL(url).scheme
    found = [entry for entry in entry_points(group=GROUP) if entry.name == scheme]
    return _checked(found[0].load(), found[0].value)(url) if found else Adapter(url)


def _load(spec: str) -> type[Adapter]:
    module, colon, name = spec.partition(":")
    if not (module and colon and name):
        raise ConfigurationError(f"--adapter takes module:Class, not {spec!r}")
    try:
        return _checked(getattr(importlib.import_module(module), name), spec)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"the adapter {spec} can't be imported: {error}") from error


def _checked(cls: object, spec: str) -> type[Adapter]:
    if not (isinstance(cls, type) and issubclass(cls, Adapter)):
        raise ConfigurationError(f"{spec} isn't a subclass of gotasks.conformance.Adapter")
    return cls
