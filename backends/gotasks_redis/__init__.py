"""The Redis backend of gotasks: `redis://`, `rediss://`, `unix://`, `valkey://`; by sentinels and on clusters too."""

from gotasks_redis.broker import RedisBroker

__all__ = ["RedisBroker"]
