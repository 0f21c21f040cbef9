"""Redis: whatever is done with priorities, unique keys and cancelled tasks, it answers as the memory broker does."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from gotasks.broker import Broker, Lease, Record, State
from gotasks.discovery import open_broker
from gotasks.memory import MemoryBroker
from tests.backends.contract import LONG, envelope, write
from tests.backends.test_namespaces import Keys

QUEUES = ("orders", "mail")

#: Few, so that the same ones come again while their old places are in the lists still.
IDS = [f"task-{number}" for number in range(30)]
UNIQUE = (None, None, "", "key", "key:1")
PRIORITIES = (0, 0, 0, 1, 9)


class Walk:
    """The same steps on both brokers. What each answers must be the same."""

    def __init__(self, redis: Broker, seed: int) -> None:
        self.brokers = (redis, MemoryBroker())
        self.random = random.Random(seed)
        self.held: dict[str, tuple[Lease, ...]] = {}

    def go(self, steps: int) -> None:
        """Random steps, each followed by a look at everything."""
        menu: list[Callable[[], None]] = (
            [self.enqueue] * 6 + [self.take] * 3 + [self.take_ids, self.release] * 2
        )
        menu += [self.ack, self.cancel, self.cancel, self.checkpoint]
        for number in range(steps):
            step = self.random.choice(menu) if number % 97 else self.purge
            step()
            self.look(f"step {number}, {step.__name__}")

    def both(self, call: Callable[[Broker], object]) -> None:
        redis, memory = (call(each) for each in self.brokers)
        assert redis == memory

    def enqueue(self) -> None:
        queue = self.random.choice(QUEUES)
        sent = [
            envelope(
                task_id,
                self.random.randbytes(3),
                queue=queue,
                priority=self.random.choice(PRIORITIES),
                unique=self.random.choice(UNIQUE),
                delay=self.random.choice((0.0, 0.0, 0.0, LONG)),
            )
            for task_id in self.random.sample(IDS, self.random.choice((1, 1, 2, 8)))
        ]
        self.both(lambda broker: dict(broker.enqueue(sent)))

    def take(self) -> None:
        limit = self.random.choice((1, 1, 2, 5))
        self._acquire(limit)

    def take_ids(self) -> None:
        self._acquire(1, [self.random.choice(IDS)])

    def _acquire(self, limit: int, ids: list[str] | None = None) -> None:
        queue = self.random.choice(QUEUES)
        redis, memory = (
            broker.acquire(queue, limit=limit, wait=0, lease_for=LONG, ids=ids) for broker in self.brokers
        )
        assert [each.envelope for each in redis] == [each.envelope for each in memory]
        for leases in zip(redis, memory, strict=True):
            self.held[leases[0].envelope.id] = leases

    def _some(self) -> tuple[Lease, ...] | None:
        """One that is held, or was: then the writes are lost."""
        return self.held[self.random.choice(list(self.held))] if self.held else None

    def release(self) -> None:
        queue, delay = self.random.choice((None, *QUEUES)), self.random.choice((0.0, 0.0, 0.0, LONG))
        self._write(lambda broker, lease: broker.release([write(lease, seq=9, queue=queue, delay=delay)]))

    def checkpoint(self) -> None:
        self._write(lambda broker, lease: broker.checkpoint([write(lease, seq=1)]))

    def ack(self) -> None:
        keep_for = self.random.choice((0.0, LONG))
        self._write(lambda broker, lease: broker.ack([write(lease, seq=9)], keep_for=keep_for))

    def _write(self, call: Callable[[Broker, Lease], frozenset[str]]) -> None:
        if leases := self._some():
            redis, memory = (bool(call(*each)) for each in zip(self.brokers, leases, strict=True))
            assert redis == memory

    def cancel(self) -> None:
        ids, keep_for = (
            self.random.sample(IDS, self.random.choice((1, 2, 12))),
            self.random.choice((0.0, 0.0, 0.0, LONG)),
        )
        self.both(lambda broker: sorted(broker.cancel(ids, keep_for=keep_for)))

    def purge(self) -> None:
        queue = self.random.choice(QUEUES)
        self.both(lambda broker: broker.purge(queue))

    def look(self, when: str) -> None:
        for queue in QUEUES:
            redis, memory = (self._seen(broker, queue) for broker in self.brokers)
            assert redis == memory, when

    def _seen(self, broker: Broker, queue: str) -> object:
        """Stats, what is ready in its order, all at once and page by page, and all records."""
        paged: list[Record] = []
        while page := broker.browse(queue, state=State.READY, limit=3, after=paged[-1].id if paged else None):
            paged += page
        ready = list(broker.browse(queue, state=State.READY, limit=99))
        return broker.stats(queue), ready, paged, dict(broker.get(IDS))


@pytest.mark.parametrize("seed", range(6))
def test_redis_answers_as_the_memory_broker_does(redis_url: str, seed: int) -> None:
    redis = open_broker(redis_url)
    walk = Walk(redis, seed)
    walk.go(400)
    redis.cancel(IDS, keep_for=0)
    keys = Keys(redis_url)
    left = {name for name, ttl in keys.all().items() if ttl == -1}
    keys.close()
    assert left == set()
    redis.close()
