"""The Redis backend of gotasks: `redis://`, `rediss://`, `unix://`."""

from gotasks_redis.broker import RedisBroker

__all__ = ["RedisBroker"]
