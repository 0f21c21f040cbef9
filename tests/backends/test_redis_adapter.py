"""What the conformance suite does to a Redis server, and that it does nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gotasks.broker import BrokerURL, Envelope, Lease
from gotasks.conformance.adapter import MissingHook, NotApplicable
from gotasks.errors import BrokerUnavailable, Rejected
from gotasks_redis import RedisBroker
from gotasks_redis.conformance import PrivateRedis, RedisAdapter
from tests.resp import Resp, RespError

TLS = "ssl_ca_certs=/etc/a%20b.pem&ssl_check_hostname=true"


def opened(url: str) -> RedisBroker:
    return RedisBroker.from_url(BrokerURL(url))


def taken(broker: RedisBroker, queue: str = "orders") -> list[Lease]:
    return broker.acquire(queue, limit=10, wait=0, lease_for=60)


@pytest.mark.parametrize(
    "url",
    [
        "redis://me:a%2Fb@host:1/3?durability=kill&timeout=7",
        f"rediss://host/0?namespace=other&{TLS}",
        "unix:///run/redis.sock?db=2",
    ],
)
def test_a_place_differs_in_its_namespace_only(url: str) -> None:
    before, place = BrokerURL(url), BrokerURL(RedisAdapter(url).url("mine"))
    assert place.params == {**before.params, "namespace": "mine"}
    for name in ("scheme", "user", "password", "hosts", "path"):
        assert getattr(place, name) == getattr(before, name)
    opened(place.raw).close()  # it is understood


def test_the_way_by_a_proxy() -> None:
    adapter = RedisAdapter("redis://host")
    assert adapter.endpoint("redis://host") == ("host", 6379)
    assert adapter.endpoint("redis://") == ("127.0.0.1", 6379)
    assert adapter.through("redis://me:secret@host:1/0?timeout=7", 5) == (
        "redis://me:secret@127.0.0.1:5/0?timeout=7"
    )
    secure = BrokerURL(adapter.through(f"rediss://host/0?{TLS}", 5))
    assert secure.params == {"ssl_ca_certs": "/etc/a b.pem", "ssl_check_hostname": "false"}
    with pytest.raises(NotApplicable, match="socket"):
        adapter.endpoint("unix:///run/redis.sock")


@pytest.mark.parametrize("reached", ["by TCP", "by a socket"])
def test_only_what_is_in_the_place_is_dropped(
    private_redis: Callable[..., PrivateRedis], tmp_path: Path, reached: str
) -> None:
    socket = tmp_path / "s"
    server = private_redis(unixsocket=str(socket))
    url = server.url if reached == "by TCP" else f"unix://{socket}"
    adapter = RedisAdapter(f"{url}?namespace=theirs")
    mine, theirs = adapter.url("mine"), f"{url}?namespace=theirs"
    for place in (mine, theirs):
        broker = opened(place)
        broker.enqueue([Envelope(id=f"t{each}", queue="orders", body=b"x" * 500) for each in range(1500)])
        broker.close()
    sizes = adapter.dump(mine)
    assert len(sizes) == 1502  # tasks, the queue, the token
    assert all(size > 500 for name, size in sizes.items() if ":task:" in name)
    adapter.drop(mine)
    assert adapter.dump(mine) == {}
    assert len(adapter.dump(theirs)) == 1502
    adapter.drop(mine)


def test_strangers_and_evictions(redis_url: str) -> None:
    adapter = RedisAdapter(redis_url)
    broker = opened(redis_url)
    adapter.put_raw(redis_url, "orders", b"\x00 not ours")
    (lease,) = taken(broker)
    assert lease.envelope.body == b"\x00 not ours"
    broker.enqueue([Envelope(id="gone", queue="orders", body=b"body")])
    adapter.evict(redis_url, "gone")
    assert broker.get(["gone"]) == {}
    (lease,) = taken(broker)
    assert (lease.envelope.id, lease.envelope.body) == ("gone", b"")
    with pytest.raises(LookupError):
        adapter.evict(redis_url, "never-there")
    broker.close()


@pytest.mark.parametrize("durability", ["none", "restart", "kill"])
def test_a_server_keeps_what_the_url_says(redis_url: str, tmp_path: Path, durability: str) -> None:
    adapter = RedisAdapter(f"{redis_url}&durability={durability}&timeout=7")
    with adapter.server(tmp_path) as server:
        assert BrokerURL(server.url).params == {"durability": durability, "timeout": "7"}
        broker = opened(server.url)
        assert bool(broker.warnings()) is (durability == "none")
        broker.enqueue([Envelope(id="kept", queue="orders", body=b"body")])
        if durability == "kill":
            server.kill()
        else:
            server.stop()
        with pytest.raises(BrokerUnavailable):
            broker.stats("orders")
        server.start()
        assert bool(broker.get(["kept"])) is (durability != "none")
        broker.close()
    with pytest.raises(ConnectionRefusedError):
        Resp(server.url)


def test_a_server_of_its_own_is_reached_without_the_options_of_the_other(tmp_path: Path) -> None:
    for url in (
        f"rediss://me:secret@host/3?{TLS}&durability=kill",
        "unix:///no.sock?db=2&durability=kill",
        "redis+sentinel://host/tasks?sentinel_password=x&replicas=2&durability=kill",
        "valkey+cluster://host?durability=kill",
    ):
        with RedisAdapter(url).server(tmp_path) as server:
            assert BrokerURL(server.url).params == {"durability": "kill"}
            opened(server.url).stats("orders")


def test_without_a_program_the_hook_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    adapter = RedisAdapter("redis://127.0.0.1/0")
    with pytest.raises(MissingHook, match="Install redis-server"), adapter.server(tmp_path):
        pass


def test_a_full_server_has_room_again_afterwards(tmp_path: Path) -> None:
    adapter = RedisAdapter("redis://127.0.0.1/0")
    with adapter.server(tmp_path) as server:
        broker = opened(server.url)
        with adapter.full(server), pytest.raises(Rejected):
            broker.enqueue([Envelope(id="refused", queue="orders", body=b"body")])
        assert broker.enqueue([Envelope(id="refused", queue="orders", body=b"body")]) == {}
        broker.close()
        with Resp(server.url) as other:
            assert other.call("CONFIG", "GET", "maxmemory") == [b"maxmemory", b"0"]
            assert other.call("DBSIZE") == len(adapter.dump(server.url))


def test_a_disturbed_server_has_no_scripts_and_no_clients(tmp_path: Path) -> None:
    adapter = RedisAdapter("redis://127.0.0.1/0")
    with adapter.server(tmp_path) as server, Resp(server.url) as other:
        digest = other.call("SCRIPT", "LOAD", "return 1")
        assert isinstance(digest, bytes)
        adapter.disturb(server)
        with pytest.raises((OSError, RespError)):
            other.call("PING")
        with Resp(server.url) as another:
            assert another.call("SCRIPT", "EXISTS", digest) == [0]


def test_a_weakened_server_is_as_before_afterwards(tmp_path: Path) -> None:
    adapter = RedisAdapter("redis://127.0.0.1/0?durability=kill")
    with adapter.server(tmp_path) as server:
        broker = opened(server.url)
        with adapter.weakened(server):
            assert broker.warnings()
        end = time.monotonic() + 10
        while broker.warnings() and time.monotonic() < end:
            time.sleep(0.01)  # between two looks at the server
        assert broker.warnings() == []
        broker.close()


def test_the_version(redis_url: str) -> None:
    assert RedisAdapter(redis_url).server_version(redis_url).split()[0] in ("Redis", "Valkey")
