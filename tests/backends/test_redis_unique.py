"""Redis: unique keys, and what becomes of them when a task ends, or when somebody takes its record away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gotasks.broker import State
from gotasks.discovery import open_broker
from gotasks_redis import RedisBroker
from gotasks_redis.conformance import RedisAdapter
from tests.backends.contract import LONG, QUEUE, envelope, eventually, stats, take_one, write
from tests.backends.test_namespaces import Keys
from tests.resp import Resp

KEY = "order 42"


@pytest.fixture
def redis(redis_url: str) -> Iterator[RedisBroker]:
    broker = open_broker(redis_url)
    assert isinstance(broker, RedisBroker)
    yield broker
    broker.close()


@pytest.fixture
def keys(redis_url: str) -> Iterator[Keys]:
    keys = Keys(redis_url)
    yield keys
    keys.close()


def uniques(keys: Keys) -> set[str]:
    return {each for each in keys.all() if each.startswith("unique:")}


@pytest.mark.parametrize("keep_for", [0.0, LONG])
@pytest.mark.parametrize("state", ["ready", "scheduled", "held"])
@pytest.mark.parametrize("end", ["ack", "cancel", "purge"])
def test_a_key_is_gone_with_its_task(
    redis: RedisBroker, keys: Keys, state: str, end: str, keep_for: float
) -> None:
    redis.enqueue([envelope("one", unique=KEY, delay=LONG if state == "scheduled" else 0.0)])
    assert uniques(keys) == {f"unique:{KEY}"}
    if end == "purge" and state != "held":
        assert redis.purge(QUEUE) == 1
        keep_for = 0.0
    elif end == "cancel":
        if state == "held":
            take_one(redis)
        assert redis.cancel(["one"], keep_for=keep_for) == ["one"]
    else:
        redis.ack([write(take_one(redis, task_id="one"))], keep_for=keep_for)
    left = keys.all()
    assert left.keys() == ({"task:one"} if keep_for else set())
    assert all(0 < ttl <= LONG * 1000 for ttl in left.values())


def test_the_end_of_a_kept_record_leaves_the_next_task_its_key(redis: RedisBroker, keys: Keys) -> None:
    for end in ("ack", "cancel"):
        redis.enqueue([envelope(f"{end}-1", unique=KEY)])
        if end == "ack":
            redis.ack([write(take_one(redis))], keep_for=0.05)
        else:
            redis.cancel([f"{end}-1"], keep_for=0.05)
        assert redis.enqueue([envelope(f"{end}-2", unique=KEY)]) == {}
        eventually(lambda end=end: not redis.get([f"{end}-1"]), what="the end of the record")  # type: ignore[misc]
        assert redis.enqueue([envelope("other", unique=KEY)]) == {"other": f"{end}-2"}
        assert redis.cancel([f"{end}-1"], keep_for=0) == []
        assert redis.enqueue([envelope("other", unique=KEY)]) == {"other": f"{end}-2"}
        assert redis.cancel([f"{end}-2"], keep_for=0) == [f"{end}-2"]
        assert uniques(keys) == set()


def test_the_key_of_a_task_whose_record_was_evicted_is_free(
    redis: RedisBroker, redis_url: str, keys: Keys
) -> None:
    """The worker that meets its place gets something without a body, and without the key: its end frees nothing."""
    adapter = RedisAdapter(redis_url)
    redis.enqueue([envelope("evicted", unique=KEY)])
    adapter.evict(redis_url, "evicted")
    assert redis.enqueue([envelope("next", unique=KEY)]) == {}
    lease = take_one(redis)
    assert (lease.envelope.id, lease.envelope.unique, lease.envelope.body) == ("evicted", None, b"")
    redis.ack([write(lease)], keep_for=0)
    assert redis.enqueue([envelope("other", unique=KEY)]) == {"other": "next"}
    redis.ack([write(take_one(redis))], keep_for=0)
    assert keys.all() == {}


def test_an_id_that_comes_again_has_no_key_of_its_former_task(redis: RedisBroker, redis_url: str) -> None:
    redis.enqueue([envelope("one", unique=KEY)])
    RedisAdapter(redis_url).evict(redis_url, "one")
    assert redis.enqueue([envelope("one", unique="another key")]) == {}
    assert redis.enqueue([envelope("two", unique=KEY)]) == {}
    assert redis.enqueue([envelope("three", unique="another key")]) == {"three": "one"}
    redis.cancel(["one"], keep_for=0)
    assert redis.enqueue([envelope("four", unique=KEY)]) == {"four": "two"}


def test_a_task_whose_key_another_has_got_frees_nothing(redis: RedisBroker, redis_url: str) -> None:
    """Because somebody took away what said that it has it."""
    for number, end in enumerate(("ack", "cancel", "purge")):
        key, queue = f"{KEY}, {end}", f"queue-{number}"
        redis.enqueue([envelope(f"one-{end}", unique=key, queue=queue)])
        with Resp(redis_url) as server:
            server.call("DEL", f"{redis._keys.prefix}unique:{key}")
        assert redis.enqueue([envelope(f"two-{end}", unique=key)]) == {}
        if end == "ack":
            redis.ack([write(take_one(redis, queue=queue))], keep_for=0)
        elif end == "cancel":
            redis.cancel([f"one-{end}"], keep_for=0)
        else:
            redis.purge(queue)
        assert redis.enqueue([envelope("three", unique=key)]) == {"three": f"two-{end}"}


def test_a_worker_that_knows_no_keys_keeps_none_taken(redis: RedisBroker, redis_url: str, keys: Keys) -> None:
    """While workers are replaced, an earlier version may ack a task that has one, and keep its record."""
    redis.enqueue([envelope("one", unique=KEY)])
    take_one(redis)
    with Resp(redis_url) as server:
        server.call("HSET", f"{redis._keys.prefix}task:one", "s", "done")
        server.call("ZREM", f"{redis._keys.prefix}leased:{QUEUE}", "one")
    assert redis.enqueue([envelope("two", unique=KEY)]) == {}
    assert redis.enqueue([envelope("three", unique=KEY)]) == {"three": "two"}
    redis.ack([write(take_one(redis))], keep_for=0)
    assert uniques(keys) == set()


def test_a_key_that_holds_something_else_keeps_no_task_out(
    redis: RedisBroker, redis_url: str, keys: Keys
) -> None:
    with Resp(redis_url) as server:
        server.call("LPUSH", f"{redis._keys.prefix}unique:{KEY}", "not", "ours")
        server.call("LPUSH", f"{redis._keys.prefix}task:list", "not", "ours")
        server.call("SET", f"{redis._keys.prefix}unique:points", "list")
    sent = [envelope("one", unique=KEY), envelope("two", unique=KEY), envelope("three", unique="points")]
    assert redis.enqueue(sent) == {"two": "one"}
    assert redis.stats(QUEUE) == stats(ready=2)
    redis.cancel(["one", "three"], keep_for=0)
    assert uniques(keys) == set()


@pytest.mark.parametrize("key", ["", ":", "0:1", "#1:x", "a\nb\r\n", "\x00", "\ud800", "ä" * 70_000, "7#12:"])
@pytest.mark.parametrize("priority", [0, 9])
def test_any_text_is_a_key(redis: RedisBroker, key: str, priority: int) -> None:
    redis.enqueue([envelope("one", unique=key, priority=priority, delay=0.001)])
    assert redis.enqueue([envelope("two", unique=key), envelope("three", unique=f"{key}.")]) == {"two": "one"}
    lease = take_one(redis, wait=5, task_id="one")
    assert (lease.envelope.unique, lease.envelope.priority) == (key, priority)
    redis.release([write(lease)])
    lease = take_one(redis, task_id="one")
    assert (lease.envelope.unique, lease.envelope.priority) == (key, priority)
    assert redis.get(["one"])["one"].state is State.LEASED
    redis.ack([write(lease)], keep_for=LONG)
    assert redis.enqueue([envelope("two", unique=key)]) == {}
