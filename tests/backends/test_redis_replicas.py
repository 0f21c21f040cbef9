"""Redis with replicas: what is confirmed is on them, and a server that isn't the master any more is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from gotasks.broker import Broker
from gotasks.conformance.kit.process import until
from gotasks.discovery import open_broker
from gotasks.errors import BrokerUnavailable
from tests.backends.contract import LONG, QUEUE, envelope, eventually, put, take, take_one, write
from tests.redis_answers import answering
from tests.redis_server import PrivateRedis, ask, field
from tests.resp import Resp

Pair = tuple[PrivateRedis, PrivateRedis]


@pytest.fixture
def pair(private_redis: Callable[..., PrivateRedis]) -> Pair:
    """A master and its replica. The master sends nothing but writes."""
    options = {"repl_diskless_sync_delay": "0", "repl_ping_replica_period": "3600"}
    master, replica = private_redis(**options), private_redis(**options)
    follow(replica, master)
    return master, replica


def follow(replica: PrivateRedis, master: PrivateRedis) -> None:
    """Make it a replica; return when it has the data."""
    ask(replica.url, "REPLICAOF", "127.0.0.1", str(master.port))
    until(lambda: field(replica.url, "replication", "master_link_status") == "up", "the replica's data")
    caught_up(master)


def caught_up(master: PrivateRedis) -> None:
    with Resp(master.url, timeout=30) as server:
        server.call("SET", "caught", "up")
        assert server.call("WAIT", "1", "20000") == 1


@contextmanager
def stopped(server: PrivateRedis) -> Iterator[None]:
    """It is there, and does nothing."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_what_finds_nothing_to_write_waits_for_the_replicas_too(pair: Pair) -> None:
    """A call that is repeated is told that it's done already: is that on the replica?

    From Redis 7.2 on WAIT is for what the connection has written last; one that has written nothing waits for nothing.
    """
    master, replica = pair
    plain = open_broker(master.url)
    plain.enqueue([envelope("known", unique="key"), envelope("held")])
    lease = take_one(plain, task_id="held")
    assert plain.checkpoint([write(lease, seq=1)]) == frozenset()
    other = take_one(plain, task_id="known")
    plain.release([write(other)])
    calls: list[Callable[[Broker], object]] = [
        lambda broker: broker.enqueue([envelope("known")]),
        lambda broker: broker.enqueue([envelope("another", unique="key")]),
        lambda broker: broker.checkpoint([write(lease, seq=1)]),
        lambda broker: broker.ack([write(other)], keep_for=0),
        lambda broker: broker.extend([other], lease_for=LONG),
        lambda broker: broker.cancel(["unknown"], keep_for=0),
    ]

    def written() -> int:
        return int(field(master.url, "persistence", "rdb_changes_since_last_save"))

    for call in calls:
        careful = open_broker(f"{master.url}?replicas=1&timeout=2")
        before = written()
        call(careful)
        assert written() > before, "WAIT has nothing to wait for"
        careful.close()
    with stopped(replica):
        plain.enqueue([envelope("late")])
        careful = open_broker(f"{master.url}?replicas=1&timeout=2")
        with pytest.raises(BrokerUnavailable, match="0 of 1 replicas had it"):
            careful.enqueue([envelope("late")])
        careful.close()
    plain.close()


def test_a_full_server_is_worked_off_after_a_replica_was_away(pair: Pair) -> None:
    master, replica = pair
    careful = open_broker(f"{master.url}?replicas=1&timeout=2")
    put(careful, 3)
    leases = take(careful, 3)
    with stopped(replica), pytest.raises(BrokerUnavailable, match="0 of 1 replicas had it"):
        careful.checkpoint([write(leases[0])])
    caught_up(master)
    ask(master.url, "CONFIG", "SET", "maxmemory", "1")
    assert careful.ack([write(each, seq=2) for each in leases], keep_for=0) == frozenset()
    careful.close()


def test_a_lease_is_extended_in_time_or_not_at_all(private_redis: Callable[..., PrivateRedis]) -> None:
    """A connection that is dead costs a part of the lease, with replicas too, and not the whole timeout."""
    server = private_redis()
    careful, plain = open_broker(f"{server.url}?replicas=1"), open_broker(server.url)
    put(plain)
    lease = take_one(plain, lease_for=6)
    careful.stats(QUEUE)  # so there is a connection
    with stopped(server), pytest.raises(BrokerUnavailable, match="no reply in time"):
        careful.extend([lease], lease_for=6)
    careful.close()
    plain.close()


#: By what a server comes to refuse, as it does when another one is the master.
REFUSALS: Mapping[str, Sequence[tuple[str, ...]]] = {
    "NOREPLICAS": [("CONFIG", "SET", "min-replicas-to-write", "1")],
    "READONLY": [("REPLICAOF", "127.0.0.1", "1")],
    "MASTERDOWN": [("CONFIG", "SET", "replica-serve-stale-data", "no"), ("REPLICAOF", "127.0.0.1", "1")],
}


def can_refuse(server: PrivateRedis, refusal: str) -> None:
    """Skip where its version doesn't refuse that way."""
    if refusal == "NOREPLICAS" and field(server.url, "server", "redis_version").startswith("6."):
        pytest.skip("before Redis 7.0 a script isn't held to min-replicas-to-write")


def refuse(server: PrivateRedis, refusal: str) -> None:
    """Have it refuse as one does that isn't the master, or can't be sure of it."""
    for command in REFUSALS[refusal]:
        ask(server.url, *command)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_the_sentinels_are_asked_again_when_the_master_refuses(
    private_redis: Callable[..., PrivateRedis], refusal: str
) -> None:
    """It may be cut off from them, and not from us; or be a replica now, and keep our connections."""
    old, new = private_redis(), private_redis()
    can_refuse(old, refusal)
    named = [old]
    with answering(lambda _: [b"127.0.0.1", str(named[0].port).encode()]) as sentinel:
        broker = open_broker(f"redis+sentinel://127.0.0.1:{sentinel}/tasks")
        put(broker)
        named[:] = [new]
        refuse(old, refusal)
        with pytest.raises(BrokerUnavailable):
            put(broker)
        put(broker, 2)
        assert broker.stats(QUEUE).ready == 2
        assert ask(new.url, "LLEN", "{gt}:ready:orders") == 2
        broker.close()


def test_a_master_that_became_a_replica_is_left_with_replicas_too(pair: Pair) -> None:
    """It refuses what it is told, and WAIT as well: the first is what matters."""
    old, new = pair
    named = [old]
    with answering(lambda _: [b"127.0.0.1", str(named[0].port).encode()]) as sentinel:
        broker = open_broker(f"redis+sentinel://127.0.0.1:{sentinel}/tasks?replicas=1")
        put(broker)
        ask(new.url, "REPLICAOF", "NO", "ONE")
        follow(old, new)
        named[:] = [new]
        with pytest.raises(BrokerUnavailable, match="read only replica"):
            put(broker)
        put(broker)
        assert ask(new.url, "LLEN", "{gt}:ready:orders") == 2
        broker.close()


def test_a_wait_at_the_old_master_is_not_ended_at_the_new_one(
    private_redis: Callable[..., PrivateRedis],
) -> None:
    """There its client's number is another client's."""
    old, new = private_redis(), private_redis()
    can_refuse(old, "NOREPLICAS")
    for _ in range(20):  # the new one mustn't have counted as far
        ask(old.url, "PING")
    named = [old]
    with (
        answering(lambda _: [b"127.0.0.1", str(named[0].port).encode()]) as sentinel,
        ThreadPoolExecutor() as threads,
    ):
        broker = open_broker(f"redis+sentinel://127.0.0.1:{sentinel}/tasks")
        waits = threads.submit(broker.acquire, QUEUE, limit=1, wait=30, lease_for=LONG)
        eventually(lambda: field(old.url, "clients", "blocked_clients") == "1", what="the wait")
        listed = ask(old.url, "CLIENT", "LIST")
        assert isinstance(listed, bytes)
        (number,) = (int(line.split(b" ")[0][3:]) for line in listed.splitlines() if b"cmd=blpop" in line)
        stranger = Resp(new.url, timeout=30)
        while (own := stranger.call("CLIENT", "ID")) != number:
            assert isinstance(own, int)
            assert own < number
            stranger.close()
            stranger = Resp(new.url, timeout=30)
        got = threads.submit(stranger.call, "BLPOP", "of the stranger", "30")
        eventually(lambda: field(new.url, "clients", "blocked_clients") == "1", what="the stranger's wait")
        named[:] = [new]
        refuse(old, "NOREPLICAS")
        with pytest.raises(BrokerUnavailable):
            put(broker)
        broker.interrupt(QUEUE)
        ask(new.url, "LPUSH", "of the stranger", "there")
        assert got.result(30) == [b"of the stranger", b"there"]
        put(broker)
        broker.interrupt(QUEUE)
        waits.exception(30)  # one, if it came to the old master once more
        stranger.close()
        broker.close()


@pytest.mark.parametrize(
    "said",
    [
        5,
        b"OK",
        [],
        [b"127.0.0.1"],
        [b"127.0.0.1", b"port"],
        [b"\xff\xfe", b"6379"],
        [b"", b"6379"],
        [b"127.0.0.1", b"99999999"],
    ],
)
def test_a_sentinel_that_says_nothing_of_use_is_passed_over(said: object) -> None:
    with (
        answering(lambda _: said) as first,  # type: ignore[arg-type,return-value]
        answering(lambda _: None) as next_one,
    ):
        broker = open_broker(f"redis+sentinel://127.0.0.1:{first},127.0.0.1:{next_one}/tasks")
        with pytest.raises(BrokerUnavailable, match=rf"{first}: .*{next_one}: no 'tasks' is known there"):
            broker.stats(QUEUE)
        broker.close()


def test_a_master_that_says_nothing_of_use_is_passed_over() -> None:
    with answering(lambda _: 1) as master, answering(lambda _: [b"127.0.0.1", b"%d" % master]) as sentinel:
        broker = open_broker(f"redis+sentinel://127.0.0.1:{sentinel}/tasks")
        with pytest.raises(BrokerUnavailable, match=rf"its master 127.0.0.1:{master} says nothing of use"):
            broker.stats(QUEUE)
        broker.close()


@pytest.mark.parametrize("said", [5, [5], [[0, 16383]], [[0, 16383, [b"127.0.0.1", 99999999]]]])
def test_a_node_that_says_nothing_of_use_is_passed_over(said: object) -> None:
    with answering(lambda _: said) as first, answering(lambda _: []) as next_one:  # type: ignore[arg-type,return-value]
        broker = open_broker(f"redis+cluster://127.0.0.1:{first},127.0.0.1:{next_one}")
        with pytest.raises(
            BrokerUnavailable, match=rf"{first}: .*{next_one}: no node of the cluster has slot"
        ):
            broker.stats(QUEUE)
        broker.close()
