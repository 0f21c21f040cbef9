"""Redis: lists of several priorities, and what tasks leave behind that are cancelled or acquired by their id."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotasks.broker import Envelope, Lease, QueueStats, State
from gotasks.discovery import open_broker
from gotasks_redis import RedisBroker
from gotasks_redis.conformance import RedisAdapter
from tests.backends.contract import (
    LONG,
    QUEUE,
    envelope,
    eventually,
    ids_of,
    let_end,
    put,
    stats,
    take,
    take_one,
    write,
)
from tests.backends.test_namespaces import Keys
from tests.redis_server import PrivateRedis
from tests.resp import Resp


@pytest.fixture
def redis(redis_url: str) -> Iterator[RedisBroker]:
    broker = open_broker(redis_url)
    assert isinstance(broker, RedisBroker)
    yield broker
    broker.close()


@pytest.fixture
def server(redis_url: str) -> Iterator[Resp]:
    with Resp(redis_url) as server:
        yield server


@pytest.fixture
def keys(redis_url: str) -> Iterator[Keys]:
    keys = Keys(redis_url)
    yield keys
    keys.close()


def named(redis: RedisBroker, name: str) -> str:
    return f"{redis._keys.prefix}{name}"


def length(redis: RedisBroker, server: Resp, name: str = "") -> int:
    found = server.call("LLEN", named(redis, f"ready:{QUEUE}{name}"))
    assert isinstance(found, int)
    return found


def shown(redis: RedisBroker, *, page: int = 1000) -> list[str]:
    """What browse shows as ready, page by page."""
    found: list[str] = []
    after = None
    while records := redis.browse(QUEUE, state=State.READY, limit=page, after=after):
        found += ids_of(records)
        after = found[-1]
    return found


def taken(redis: RedisBroker) -> list[str]:
    """All that is ready, in the order in which it comes; it ends."""
    found: list[str] = []
    while leases := take(redis, 1000):
        found += ids_of(leases)
        redis.ack([write(each) for each in leases], keep_for=0)
    return found


# -- what was stored before there were priorities --------------------------------------------------------


def test_what_an_earlier_version_stored_is_worked_off(redis: RedisBroker, server: Resp, keys: Keys) -> None:
    def store(task_id: str, *fields: str) -> None:
        server.call("HSET", named(redis, f"task:{task_id}"), "q", QUEUE, "b", f"body of {task_id}", *fields)

    for task_id in ("first", "second", "third", "fourth"):
        store(task_id, "s", "ready")
        server.call("LPUSH", named(redis, f"ready:{QUEUE}"), task_id)
    server.call("LPUSH", named(redis, f"wake:{QUEUE}"), "1")
    for task_id, end in (("died", "1000"), ("held", "99999999999999")):
        store(task_id, "s", "leased", "r", "session.0.1", "n", "3", "d", "2")
        server.call("ZADD", named(redis, f"leased:{QUEUE}"), end, task_id)
    for task_id, due in (("due", "1000"), ("later", "99999999999999")):
        store(task_id, "s", "scheduled")
        server.call("ZADD", named(redis, f"scheduled:{QUEUE}"), due, task_id)
    store("done", "s", "done")
    server.call("PEXPIRE", named(redis, "task:done"), "60000")

    assert redis.stats(QUEUE) == stats(ready=5, scheduled=1, leased=2)
    assert shown(redis) == ["first", "second", "third", "fourth", "due"]
    assert redis.enqueue([envelope("first"), envelope("done"), envelope("held")]) == {
        each: each for each in ("first", "done", "held")
    }
    assert redis.enqueue([envelope("high", priority=1), envelope("last", unique="key")]) == {}
    assert redis.cancel(["second", "done"], keep_for=0) == ["second"]
    (died, deaths) = ((lease := take(redis)[0]).envelope.id, lease.deaths)
    assert (died, deaths) == ("high", 0)
    (lease,) = take(redis)
    assert (lease.envelope, lease.deaths) == (envelope("died", b"body of died"), 3)
    redis.release([write(lease, b"new")])
    held = Lease(envelope=envelope("held"), receipt="session.0.1", deaths=0, deadline=0)
    assert redis.checkpoint([write(held, seq=2)]) == {"session.0.1"}
    assert redis.checkpoint([write(held, seq=4)]) == frozenset()
    assert redis.ack([write(held, seq=5)], keep_for=0) == frozenset()
    assert taken(redis) == ["died", "first", "third", "fourth", "due", "last"]
    assert ids_of(redis.acquire(QUEUE, limit=1, wait=0, lease_for=LONG, ids=["later"])) == ["later"]
    assert keys.all().keys() == {f"task:{each}" for each in ("high", "later", "done")} | {f"leased:{QUEUE}"}


def test_a_task_without_options_is_stored_as_before(redis: RedisBroker, server: Resp, keys: Keys) -> None:
    redis.enqueue([envelope("plain", b"body")])
    assert keys.all().keys() == {"task:plain", f"ready:{QUEUE}", f"wake:{QUEUE}"}
    assert server.call("HGETALL", named(redis, "task:plain")) == [
        b"q",
        QUEUE.encode(),
        b"b",
        b"body",
        b"s",
        b"ready",
    ]
    assert server.call("LRANGE", named(redis, f"ready:{QUEUE}"), "0", "-1") == [b"plain"]


def test_a_task_that_a_worker_without_priorities_put_back_is_not_lost(
    redis: RedisBroker, server: Resp
) -> None:
    """While workers are replaced, an earlier version may take over a task of any priority when its lease is over."""
    redis.enqueue([envelope("high", priority=7, unique="key")])
    lease = take_one(redis)
    server.call("HSET", named(redis, "task:high"), "s", "ready")
    server.call("HDEL", named(redis, "task:high"), "r", "n", "d")
    server.call("ZREM", named(redis, f"leased:{QUEUE}"), "high")
    server.call("RPUSH", named(redis, f"ready:{QUEUE}"), "high")
    assert redis.stats(QUEUE) == stats(ready=1)
    again = take_one(redis)
    assert again.envelope == lease.envelope
    assert redis.ack([write(again)], keep_for=0) == frozenset()
    assert redis.enqueue([envelope(unique="key")]) == {}


# -- priorities --------------------------------------------------------------------------------------------


def test_no_trace_of_a_priority_is_left(redis: RedisBroker, keys: Keys) -> None:
    for end in ("ack", "purge", "cancel", "by id"):
        sent = [envelope(priority=each, unique=f"key {each}") for each in (9, 0, 3)]
        redis.enqueue(sent)
        if end == "ack":
            taken(redis)
        elif end == "purge":
            assert redis.purge(QUEUE) == 3
        elif end == "cancel":
            assert redis.cancel(ids_of_all(sent), keep_for=0) == ids_of_all(sent)
        else:
            for each in sent:
                redis.ack([write(take_one(redis, task_id=each.id))], keep_for=0)
        assert keys.all() == {}, end


def ids_of_all(sent: list[Envelope]) -> list[str]:
    return [each.id for each in sent]


def test_of_many_leases_that_are_over_the_highest_priority_goes_first(redis: RedisBroker) -> None:
    sent = [envelope(priority=priority) for priority in [0] * 40 + [5] * 40 + [9, 7]]
    redis.enqueue(sent)
    let_end([*take(redis, 50, lease_for=0.01), *take(redis, 50, lease_for=0.01)])
    redis.enqueue([envelope("ready-6", priority=6), envelope("ready-5", priority=5), envelope("ready-0")])
    leases = [take_one(redis) for _ in range(3)]
    assert [(each.envelope.priority, each.deaths) for each in leases] == [(9, 1), (7, 1), (6, 0)]
    rest = [(each.envelope.priority, each.deaths) for each in take(redis, 100)]
    assert rest == [(5, 1)] * 40 + [(5, 0)] + [(0, 1)] * 40 + [(0, 0)]


def test_what_is_put_back_goes_to_the_front_of_its_priority(redis: RedisBroker) -> None:
    redis.enqueue(
        [envelope(f"{priority}-{number}", priority=priority) for priority in (0, 4) for number in range(3)]
    )
    leases = take(redis, 4)
    assert ids_of(leases) == ["4-0", "4-1", "4-2", "0-0"]
    redis.release([write(each) for each in leases[::-1]])
    redis.release([write(take_one(redis), queue="elsewhere")])
    assert shown(redis, page=2) == ["4-1", "4-2", "0-0", "0-1", "0-2"]
    redis.enqueue(
        [envelope("5-0", queue="elsewhere", priority=5), envelope("3-0", queue="elsewhere", priority=3)]
    )
    assert ids_of(take(redis, 9, queue="elsewhere")) == ["5-0", "4-0", "3-0"]


# -- what is left behind -------------------------------------------------------------------------------------


def test_what_was_cancelled_is_passed_over_and_not_taken_for_garbage(redis: RedisBroker, keys: Keys) -> None:
    """Its record is gone, as one that was evicted; that one is handed out, so that a person sees it."""
    sent = put(redis, 10)
    assert redis.cancel(sent[1:5], keep_for=0) == sent[1:5]
    assert redis.stats(QUEUE) == stats(ready=6)
    assert shown(redis, page=3) == [sent[0], *sent[5:]]
    assert redis.browse(QUEUE, state=State.READY, limit=9, after=sent[2]) == []
    assert taken(redis) == [sent[0], *sent[5:]]
    assert keys.all() == {}


def test_a_live_task_behind_many_cancelled_ones_is_found_without_waiting(redis: RedisBroker) -> None:
    """More than one call looks at; and too few to be swept up."""
    gone, live = [], []
    for _ in range(3):
        gone += put(redis, 1000)
    for _ in range(4):
        live += put(redis, 1000)
    redis.cancel(gone, keep_for=0)
    assert redis.stats(QUEUE) == stats(ready=4000)
    assert take_one(redis).envelope.id == live[0]


def test_cancelled_tasks_take_no_more_room_than_those_that_wait(redis: RedisBroker, server: Resp) -> None:
    """Nobody takes anything, tasks come and most of them are cancelled later: that must not grow for ever."""
    waiting: list[str] = []
    most = 0
    for _ in range(40):
        sent = put(redis, 100)
        waiting += sent[:1]
        redis.cancel(sent[1:], keep_for=0)
        most = max(most, length(redis, server) + length(redis, server, ":0f"))
    assert redis.stats(QUEUE) == stats(ready=40)
    assert most <= 2 * 40 + 100
    assert shown(redis, page=7) == waiting
    assert taken(redis) == waiting


@pytest.mark.parametrize("priority", [0, 8])
def test_the_order_is_right_while_a_long_list_is_swept(
    redis: RedisBroker, server: Resp, keys: Keys, priority: int
) -> None:
    sent = [envelope(priority=priority) for _ in range(6000)]
    for start in range(0, 6000, 1000):
        redis.enqueue(sent[start : start + 1000])
    cancelled, kept = ids_of_all(sent[0::3] + sent[1::3]), ids_of_all(sent[2::3])
    redis.cancel(cancelled[:3000], keep_for=0)  # not yet the most of them
    assert length(redis, server, f":{priority}f") == 0
    redis.cancel(cancelled[3000:3001], keep_for=0)
    assert length(redis, server, f":{priority}f") > 0, "the sweep isn't in its middle"
    redis.cancel(cancelled[3001:3010], keep_for=0)

    expected = [each for each in ids_of_all(sent) if each in kept or each in cancelled[3010:]]
    assert redis.stats(QUEUE) == stats(ready=len(expected))
    assert shown(redis, page=500) == expected
    first = take(redis, 2)
    assert ids_of(first) == expected[:2]
    redis.release([write(each) for each in first[::-1]])
    redis.enqueue([new := envelope(priority=priority)])
    assert shown(redis) == [*expected, new.id]
    by_id = take_one(redis, task_id=expected[1])
    redis.release([write(by_id)])
    expected[:2] = expected[1::-1]
    assert shown(redis) == [*expected, new.id]
    assert taken(redis) == [*expected, new.id]
    assert keys.all() == {}


def test_an_id_that_comes_again_has_a_new_place(redis: RedisBroker, keys: Keys) -> None:
    """While its old place is in the list still."""
    put(redis, 20)
    redis.enqueue([envelope("again")])
    (behind,) = put(redis)
    order = shown(redis)
    for unique in (None, "key", "0:#1"):
        assert redis.cancel(["again"], keep_for=0) == ["again"]
        assert redis.enqueue([envelope("again", unique=unique)]) == {}
        assert redis.stats(QUEUE) == stats(ready=22)
        assert shown(redis, page=5) == [*order[:20], behind, "again"]
    lease = take_one(redis, task_id="again")
    assert lease.envelope.unique == "0:#1"
    redis.release([write(lease, delay=0.001)])
    eventually(lambda: not redis.stats(QUEUE).scheduled, what="the end of the delay")
    assert shown(redis, page=5) == [*order[:20], behind, "again"]
    redis.release([write(take_one(redis, task_id="again"), queue="elsewhere")])
    redis.release([write(take_one(redis, queue="elsewhere"), queue=QUEUE)])
    assert shown(redis) == [*order[:20], behind, "again"]
    redis.release([write(take_one(redis, task_id="again"))])
    assert shown(redis) == ["again", *order[:20], behind]
    assert redis.cancel(["again"], keep_for=0) == ["again"]
    assert redis.enqueue([envelope("again", priority=1)]) == {}
    assert redis.stats(QUEUE) == stats(ready=22)
    assert taken(redis) == ["again", *order[:20], behind]
    assert keys.all() == {}


def test_purge_counts_no_cancelled_task(redis: RedisBroker, keys: Keys) -> None:
    """Nor does it stop at a thousand of them."""
    sent = put(redis, 1000) + put(redis, 1000) + put(redis, 10, delay=LONG)
    redis.cancel([*sent[:1000], sent[-1]], keep_for=0)
    assert redis.stats(QUEUE) == stats(ready=1000, scheduled=9)
    assert redis.purge(QUEUE) == 1009
    assert keys.all() == {}
    assert redis.purge(QUEUE) == 0


def test_cancel_takes_any_number_of_ids(redis: RedisBroker, keys: Keys) -> None:
    sent = [each for _ in range(3) for each in put(redis, 1000)]
    assert sorted(redis.cancel([*sent, *sent[:5], "unknown"], keep_for=0)) == sorted(sent)
    assert redis.cancel([], keep_for=0) == []
    assert keys.all() == {}


def test_what_is_no_record_keeps_no_call_from_the_others(redis: RedisBroker, server: Resp) -> None:
    (sent,) = put(redis)
    server.call("SET", named(redis, "task:text"), "of somebody else")
    server.call("RPUSH", named(redis, f"ready:{QUEUE}"), "text")
    server.call("HSET", named(redis, "task:half"), "s", "ready")
    ids = ["text", "half", sent]
    assert redis.get(ids).keys() == {sent}
    shown = [(each.id, each.body) for each in redis.browse(QUEUE, state=State.READY, limit=9)]
    assert shown == [("text", b""), (sent, b"body")]
    (lease,) = redis.acquire(QUEUE, limit=9, wait=0, lease_for=LONG, ids=ids)
    assert lease.envelope.id == sent
    assert redis.cancel(ids, keep_for=0) == [sent]
    assert server.call("GET", named(redis, "task:text")) == b"of somebody else"


# -- a full server ---------------------------------------------------------------------------------------


def test_a_full_server_gives_up_what_it_has(
    private_redis: Callable[..., PrivateRedis], tmp_path: Path
) -> None:
    server = private_redis()
    broker = open_broker(server.url)
    sent = [envelope(priority=each % 3, unique=f"key {each}") for each in range(300)]
    broker.enqueue(sent)
    with RedisAdapter(server.url).full(server):
        assert len(broker.cancel(ids_of_all(sent[:90]), keep_for=LONG)) == 90
        by_id = broker.acquire(QUEUE, limit=9, wait=0, lease_for=LONG, ids=ids_of_all(sent[90:99]))
        assert len(by_id) == 9
        broker.release([write(each) for each in by_id])
        leases = broker.acquire(QUEUE, limit=200, wait=0, lease_for=LONG)
        assert len(leases) == 200
        assert broker.ack([write(each) for each in leases], keep_for=LONG) == frozenset()
        assert broker.stats(QUEUE) == QueueStats(ready=10, scheduled=0, leased=0)
        assert broker.purge(QUEUE) == 10
    assert broker.enqueue([envelope(unique=f"key {each}") for each in range(300)]) == {}
    broker.close()
