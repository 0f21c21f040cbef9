"""Leases as values."""

from __future__ import annotations

import msgspec

from gotasks.broker import Envelope, Lease


def test_leases_are_equal_by_their_receipt() -> None:
    first = Lease(envelope=Envelope(id="a", queue="orders", body=b""), receipt="1", deaths=0, deadline=1.0)
    second = msgspec.structs.replace(first, receipt="2")
    other = Lease(envelope=Envelope(id="b", queue="orders", body=b""), receipt="1", deaths=7, deadline=0.0)
    assert first == other
    assert first != second
    assert len({first, second, other}) == 2
