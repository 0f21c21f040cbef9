"""NATS JetStream as a broker for gotasks: `nats://127.0.0.1:4222?namespace=shop`."""

from gotasks_nats.broker import NatsBroker

__all__ = ["NatsBroker"]
