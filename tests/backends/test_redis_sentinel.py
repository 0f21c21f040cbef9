"""Redis by way of sentinels: the master is killed, and the workers go on at the next one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gotasks.broker import Broker, BrokerURL
from gotasks.conformance.adapter import NotApplicable
from gotasks.discovery import open_broker
from gotasks.errors import BrokerUnavailable, InvalidURL
from gotasks_redis import RedisBroker
from gotasks_redis.conformance import RedisAdapter
from tests.backends.contract import eventually, put, take, take_one, write
from tests.backends.redis_load import Load
from tests.redis_server import PrivateRedis, ask
from tests.redis_watched import Watched
from tests.resp import Resp
from tests.servers import Servers

pytestmark = pytest.mark.timeout(
    150
)  # sentinels of a machine that was too busy for them hold still for half a minute


@pytest.fixture
def watched(servers: Servers, tmp_path: Path) -> Iterator[Watched]:
    if PrivateRedis.binary() is None:
        servers.missing("redis", "no redis-server program on this machine for sentinels and what they watch")
    watched = Watched(tmp_path)
    try:
        yield watched.start()
    finally:
        watched.kill()


def test_a_fail_over_under_load(watched: Watched, figures: Callable[[str], None]) -> None:
    """What the replica hadn't got when its master died is gone: the latest moment's tasks, and no older ones."""
    load = Load(watched.url)
    with load.running():
        load.more(500)
        killed = time.monotonic()
        watched.master().kill()
        load.more(200)
    away = min(each for each in load.confirmed.values() if each > killed + 0.1) - killed
    figures(f"fail-over: {load}; nothing was confirmed for {away:.1f} s")
    old = [each for each in load.lost() if load.confirmed[each] < killed - 1]
    assert old == []
    assert len(load.lost()) + len(load.twice()) < 50
    load.close()


@contextmanager
def cut_off(watched: Watched) -> Iterator[None]:
    """The replica isn't told anything any more; then its master is killed, and it becomes the master."""
    master, replica = watched.servers
    with Resp(master.url) as server:
        server.call("ACL", "SETUSER", "default", "-psync", "-sync")
        server.call("CLIENT", "KILL", "TYPE", "replica")
    yield
    master.kill()
    eventually(lambda: watched.master() is replica, within=60, what="the replica as the master")


def test_what_no_replica_has_is_lost(watched: Watched) -> None:
    """That is what Redis promises, and what the page on it says. With `replicas=1` it isn't confirmed."""
    broker, careful = open_broker(watched.url), open_broker(f"{watched.url}?replicas=1&timeout=2")
    kept = put(careful, 5)
    lease = take_one(careful)
    with cut_off(watched):
        lost = put(broker, 5)
        for call in (lambda: put(careful), lambda: careful.checkpoint([write(lease, seq=1)])):
            with pytest.raises(BrokerUnavailable, match="0 of 1 replicas had it"):
                call()
        # Seen once, and nothing more is done there: tasks would be leased, and nobody would know.
        with pytest.raises(BrokerUnavailable, match="0 of 1 replicas had it"):
            take(careful, 3)
        assert careful.stats("orders").leased == 1  # what is only read needs no replica
    eventually(lambda: answers(broker), within=60, what="an answer of the new master")
    found = broker.get([*kept, *lost])
    assert set(found) == set(kept)
    assert found[lease.envelope.id].body == lease.envelope.body
    assert broker.checkpoint([write(lease, seq=1)]) == frozenset()  # sent again, and the lease holds
    broker.close()
    careful.close()


def answers(broker: Broker) -> bool:
    try:
        broker.stats("orders")
    except BrokerUnavailable:
        return False
    return True


def test_a_former_master_is_not_used_again(watched: Watched) -> None:
    """It comes back as a replica, and says so; also to those whose connections outlived the change."""
    broker = open_broker(watched.url)
    put(broker, 3)
    before = watched.master()
    ask(watched.sentinels[0], "SENTINEL", "FAILOVER", Watched.SERVICE)
    for sentinel in watched.sentinels:
        eventually(lambda: watched.master(sentinel) is not before, within=60, what="another master")  # noqa: B023

    def taken() -> bool:
        try:
            lease = take_one(broker)
        except BrokerUnavailable:
            return False
        return broker.ack([write(lease)], keep_for=60) == frozenset()

    eventually(taken, within=60, what="a task at the new master")
    assert ask(watched.master().url, "ROLE")[0] == b"master"  # type: ignore[index]
    broker.close()


def test_sentinels_that_are_behind_are_passed_over(watched: Watched) -> None:
    """One that can't be reached, and one that names a replica: the next one is asked."""
    master, replica = watched.servers
    parsed = BrokerURL(watched.url)
    first = f"127.0.0.1:{parsed.hosts[0][1]}"
    with Resp(watched.sentinels[0]) as sentinel:
        sentinel.call("SENTINEL", "REMOVE", Watched.SERVICE)
        sentinel.call("SENTINEL", "MONITOR", Watched.SERVICE, "127.0.0.1", str(replica.port), "2")
    broker = open_broker(f"redis+sentinel://127.0.0.1:1,{watched.url.partition('://')[2]}?durability=restart")
    put(broker)
    assert ask(master.url, "KEYS", "*ready*") == [b"{gt}:ready:orders"]
    broker.close()
    alone = open_broker(f"redis+sentinel://{first}/{Watched.SERVICE}")
    with pytest.raises(BrokerUnavailable, match=f"its master 127.0.0.1:{replica.port} is a replica"):
        alone.stats("orders")
    alone.close()
    unknown = open_broker(f"redis+sentinel://{first}/another")
    with pytest.raises(BrokerUnavailable, match="no 'another' is known there"):
        unknown.stats("orders")
    unknown.close()


def test_sentinels_have_a_password_of_their_own(watched: Watched) -> None:
    master = watched.servers[0]
    for url in watched.sentinels:
        ask(url, "ACL", "SETUSER", "reader", "on", ">of the sentinel", "+@all")
        ask(url, "ACL", "SETUSER", "default", "off")
    ask(master.url, "ACL", "SETUSER", "worker", "on", ">of the data", "~*", "+@all", "-role")
    way = watched.url.replace("://", "://worker:of%20the%20data@")
    broker = open_broker(f"{way}?sentinel_user=reader&sentinel_password=of%20the%20sentinel")
    put(broker)
    assert take_one(broker).deaths == 0
    broker.close()
    stranger = open_broker(f"{way}?sentinel_user=reader&sentinel_password=wrong")
    with pytest.raises(BrokerUnavailable) as refused:
        stranger.stats("orders")
    assert "of%20the%20data" not in str(refused.value)
    assert "its master" not in str(refused.value)
    assert "wrong" not in str(refused.value)
    stranger.close()
    way = way.replace("of%20the%20data", "another")
    wrong = open_broker(f"{way}?sentinel_user=reader&sentinel_password=of%20the%20sentinel")
    with pytest.raises(BrokerUnavailable, match=f"its master 127.0.0.1:{master.port}: .*password"):
        wrong.stats("orders")
    wrong.close()


@pytest.mark.parametrize(
    "url, says",
    [
        ("redis+sentinel:///tasks", "at least one host"),
        ("redis+sentinel://host", "names the sentinels and what they watch"),
        (
            "redis+sentinel://host/tasks/db",
            r"a redis\+sentinel:// URL ends with the number of the database, as in redis\+sentinel://host",
        ),
        ("redis+sentinel://host/tasks?ssl_ca_certs=file", "no parameter 'ssl_ca_certs'"),
        ("redis+sentinels://host/tasks", "isn't supported"),
        ("redis://a,b", r"redis\+sentinel:// and redis\+cluster:// take several"),
        ("redis://host?sentinel_user=x", "no parameter"),
    ],
)
def test_a_url_that_can_not_be_meant_is_refused(url: str, says: str) -> None:
    with pytest.raises(InvalidURL, match=says):
        RedisBroker.from_url(BrokerURL(url))


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_the_schemes(scheme: str) -> None:
    for url in (f"{scheme}://host/0", f"{scheme}+sentinel://host/tasks/0", f"{scheme}+cluster://host"):
        broker = open_broker(url)
        assert isinstance(broker, RedisBroker)
        options = broker._connections._route._options  # type: ignore[attr-defined]
        assert ("ssl" in options) is (scheme in ("rediss", "valkeys"))
        broker.close()
    with pytest.raises(NotApplicable, match="sees none of its traffic"):
        RedisAdapter(f"{scheme}+sentinel://host/tasks/0").endpoint(f"{scheme}+sentinel://host/tasks/0")
