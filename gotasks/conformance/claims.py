"""Claims: what a broker says of itself, looked at once before any row is run."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

from gotasks.broker import Broker, BrokerURL, Capability, Limits
from gotasks.conformance.adapter import Adapter
from gotasks.errors import ConfigurationError, GotasksError

_CHOICES = {
    "returned": ("front", "back", "any"),
    "durability": ("none", "restart", "kill"),
    "server_crash_duplicates": ("none", "bounded"),
}


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What is claimed by the broker that an adapter opens."""

    broker: type[Broker]
    capabilities: Capability
    limits: Limits
    server: str  #: what the server says of its version; empty if there's none, or no way to ask

    @classmethod
    def of(cls, adapter: Adapter) -> Claims:
        """Open the broker, and see that it answers.

        Raises ConfigurationError for what can't be a broker or an adapter, BrokerUnavailable if nobody answers.
        """
        try:
            broker = adapter.open(adapter.broker_url)
        except GotasksError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigurationError(
                f"{BrokerURL(adapter.broker_url)} can't be opened: {type(error).__name__}: {error}"
            ) from error
        try:
            _check_types(broker, adapter)
            with suppress(NotImplementedError):  # it is being written, and its rows tell what is missing
                broker.stats("gotasks-check")
            return cls(
                broker=type(broker),
                capabilities=broker.capabilities,
                limits=broker.limits,
                server=_server(adapter),
            )
        finally:
            broker.close()


def _check_types(broker: object, adapter: Adapter) -> None:
    name = type(broker).__name__
    if not isinstance(broker, Broker):
        raise ConfigurationError(f"what {type(adapter).__name__}.open gives is no Broker, but a {name}")
    if not isinstance(broker.capabilities, Capability):
        raise ConfigurationError(
            f"{name}.capabilities has to be of gotasks.broker.Capability, not {broker.capabilities!r}"
        )
    limits = broker.limits
    if not isinstance(limits, Limits):
        raise ConfigurationError(f"{name}.limits has to be a gotasks.broker.Limits, not {limits!r}")
    numbers = {
        "max_payload": limits.max_payload,
        "max_batch": limits.max_batch,
        "max_delay": limits.max_delay,
        "max_lease": limits.max_lease,
        "max_leases": limits.max_leases,
    }
    for limit, value in numbers.items():
        if value is not None and not (_is_number(value) and value > 0):
            raise ConfigurationError(f"{name}.limits.{limit} is a number above 0, not {value!r}")
    if limits.max_batch is None or not (_is_number(limits.recovery) and limits.recovery >= 0):
        raise ConfigurationError(f"{name}.limits needs a max_batch, and a recovery of 0 or more seconds")
    for limit, choices in _CHOICES.items():
        if getattr(limits, limit) not in choices:
            raise ConfigurationError(f"{name}.limits.{limit} is one of {', '.join(choices)}")
    if adapter.lease is not None and not adapter.lease > 0:
        raise ConfigurationError(f"{type(adapter).__name__}.lease is a number of seconds above 0")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _server(adapter: Adapter) -> str:
    try:
        return str(adapter.server_version(adapter.broker_url))
    except Exception as error:
        return f"not known: {error}"
