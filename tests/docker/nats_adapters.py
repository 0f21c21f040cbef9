"""The adapter for NATS, which needs its plug-in: contrib/gotasks-nats."""

from __future__ import annotations

from gotasks_nats.adapter import NatsAdapter
from tests.docker.adapters import InContainer


class NatsInContainer(InContainer, NatsAdapter):
    """For NATS."""
