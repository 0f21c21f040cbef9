"""Brokers and adapters that the tests of the suite check: what strangers might write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from gotasks.broker import Broker, Envelope, Lease, Record, State
from gotasks.conformance.adapter import Adapter, MemoryAdapter
from gotasks.memory import MemoryBroker, _Task


class OverClaiming(MemoryBroker):
    """Claims UNIQUE, and acks by id without a look at the receipt."""

    def _held(self, lease: Lease) -> _Task | None:
        task = self._tasks.get(lease.envelope.id)
        return task if task is not None and task.state is State.LEASED else None

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        return super().enqueue([msgspec.structs.replace(each, unique=None) for each in envelopes])


class UnderClaiming(MemoryBroker):
    """Says that it can't browse, and does."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        return [task.record() for task in self._tasks.values() if task.queue == queue][:limit]


class OverClaimingAdapter(MemoryAdapter):
    broker_class: type[Broker] | None = OverClaiming


class UnderClaimingAdapter(MemoryAdapter):
    broker_class: type[Broker] | None = UnderClaiming


class HooklessAdapter(Adapter):
    """All of a memory broker, and no hook."""

    broker_class: type[Broker] | None = MemoryBroker


class WaivingAdapter(MemoryAdapter):
    """Waives a row that passes."""

    waivers = {"CKP-01": "https://example.org/issues/7"}  # noqa: RUF012
