"""What only Redis can get wrong."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import msgspec
import pytest

from gotasks import App, ArgsMap
from gotasks.broker import BrokerURL, Envelope, Write
from gotasks.errors import BrokerClosed, BrokerUnavailable, InvalidURL
from gotasks.events import BrokerDown
from gotasks_redis import RedisBroker
from tests.backends.contract import eventually, put, take
from tests.backends.engine import Watch
from tests.redis_server import PrivateRedis
from tests.resp import Resp


def _key(url: str, what: str, name: str) -> str:
    return f"{{{BrokerURL(url).params['namespace']}}}:{what}:{name}"


def test_a_record_may_be_kept_longer_than_redis_can_count(redis_url: str) -> None:
    app = App(redis_url, task_ttl=sys.maxsize)
    watch = Watch(app)

    @app.job("job")
    def job(args: ArgsMap) -> ArgsMap:
        return args

    queue = app.queue("orders", lease=1)
    with app.worker("orders"):
        assert queue.enqueue(job, {"n": 1}).wait(10) == {"n": 1}
        eventually(lambda: app.stats("orders").leased == 0, what="no lease left")
    assert watch.all(BrokerDown) == []
    app.close()


def test_purge_leaves_a_held_task_alone_though_its_id_was_pushed_again(redis_url: str) -> None:
    broker = RedisBroker.from_url(BrokerURL(redis_url))
    broker.enqueue([Envelope(id="held", queue="orders", body=b"old")])
    (lease,) = broker.acquire("orders", limit=1, wait=0, lease_for=60)
    with Resp(redis_url) as server:
        server.call("LPUSH", _key(redis_url, "ready", "orders"), "held")
    assert broker.purge("orders") == 0
    assert broker.ack([Write(lease=lease, body=b"new", seq=1)], keep_for=10) == frozenset()
    assert broker.get(["held"])["held"].body == b"new"
    broker.close()


def test_close_leaves_no_connection_of_a_wait_open(private_redis: Callable[..., PrivateRedis]) -> None:
    url = private_redis().url  # of others the clients would be counted too
    broker = RedisBroker.from_url(BrokerURL(url))
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            broker.acquire("nothing-comes", limit=1, wait=10, lease_for=10)
        except BrokerClosed as error:
            ended.append(error)

    with Resp(url) as server:

        def waiting() -> int:
            clients = server.call("CLIENT", "LIST")
            assert isinstance(clients, bytes)
            return sum(b"cmd=blpop" in line for line in clients.splitlines())

        before = waiting()
        thread = threading.Thread(target=wait)
        thread.start()
        eventually(lambda: waiting() == before + 1, what="the wait")
        broker.close()
        thread.join(5)
        assert not thread.is_alive()
        eventually(lambda: waiting() == before, what="the end of its connection")
    assert len(ended) == 1
    assert broker._connections._waiters == type(broker._connections._waiters)()


def test_a_user_who_may_not_ask_for_client_ids_can_work(redis_url: str) -> None:
    """Hosted servers forbid commands; without CLIENT ID only a wait can't be ended early."""
    parsed = BrokerURL(redis_url)
    if parsed.user or parsed.password:
        pytest.skip("the server has users of its own")
    name = BrokerURL(redis_url).params["namespace"]
    with Resp(redis_url) as server:
        server.call("ACL", "SETUSER", name, "on", ">secret", "~*", "+@all", "-client")
        try:
            broker = RedisBroker.from_url(BrokerURL(redis_url.replace("redis://", f"redis://{name}:secret@")))
            assert broker.acquire("orders", limit=1, wait=0.2, lease_for=10) == []
            broker.interrupt("orders")
            broker.close()
        finally:
            server.call("ACL", "DELUSER", name)


def test_replicas_that_come_back_are_counted_again(private_redis: Callable[..., PrivateRedis]) -> None:
    master, replica = (private_redis(repl_diskless_sync_delay="0") for _ in range(2))
    broker = RedisBroker.from_url(BrokerURL(f"{master.url}?replicas=1&timeout=2"))

    def stored() -> bool:
        try:
            return bool(put(broker))
        except BrokerUnavailable:
            return False

    def follow() -> None:
        with Resp(replica.url) as server:
            server.call("REPLICAOF", "127.0.0.1", str(master.port))

    follow()
    eventually(stored, what="a first confirmation")
    before = broker.stats("orders")
    replica.kill()
    assert not stored()
    assert not stored()
    assert broker.stats("orders") == msgspec.structs.replace(before, ready=(before.ready or 0) + 1)
    replica.start()
    follow()
    eventually(stored, what="a confirmation again")
    assert take(broker)
    broker.close()


@pytest.mark.parametrize("grade", ["none", "restart", "kill"])
def test_the_url_says_what_the_server_keeps(grade: str) -> None:
    said = RedisBroker.from_url(BrokerURL(f"redis://127.0.0.1:1/0?durability={grade}"))
    assert said.limits.durability == grade
    assert RedisBroker.from_url(BrokerURL("redis://127.0.0.1:1/0")).limits.durability == "none"


@pytest.mark.parametrize("scheme", ["redis://127.0.0.1:1/0", "rediss://127.0.0.1:1/0", "unix:///no.sock"])
def test_another_durability_is_refused(scheme: str) -> None:
    assert RedisBroker.from_url(BrokerURL(f"{scheme}?durability=kill")).limits.durability == "kill"
    with pytest.raises(InvalidURL, match="none, restart or kill"):
        RedisBroker.from_url(BrokerURL(f"{scheme}?durability=disk"))


_SAVE = "900 1"


@pytest.mark.parametrize(
    "claim, settings, change",
    [
        ("none", {}, "a restart loses every task"),
        ("none", {"save": _SAVE}, ""),
        ("restart", {}, "set appendonly to yes, or say durability=none"),
        ("restart", {"save": _SAVE}, ""),
        ("restart", {"appendonly": "yes"}, ""),
        ("kill", {}, "set appendonly to yes and appendfsync to always, or say durability=none"),
        (
            "kill",
            {"save": _SAVE},
            "set appendonly to yes and appendfsync to always, or say durability=restart",
        ),
        ("kill", {"appendfsync": "always"}, "set appendonly to yes, or say durability=none"),
        ("kill", {"appendonly": "yes"}, "set appendfsync to always, or say durability=restart"),
        ("kill", {"appendonly": "yes", "appendfsync": "always"}, ""),
        ("kill", {"appendonly": "yes", "appendfsync": "no"}, ""),
    ],
)
def test_a_claim_that_is_not_true_is_warned_of(
    private_redis: Callable[..., PrivateRedis], claim: str, settings: dict[str, str], change: str
) -> None:
    broker = RedisBroker.from_url(BrokerURL(f"{private_redis(**settings).url}?durability={claim}"))
    warnings = broker.warnings()
    broker.close()
    assert [change in each for each in warnings] == ([True] if change else [])


@pytest.mark.parametrize("claim, notes", [("none", 0), ("kill", 1)])
def test_a_server_that_tells_no_settings_is_not_warned_of(
    private_redis: Callable[..., PrivateRedis], claim: str, notes: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Hosted servers refuse CONFIG: then nobody knows, and that is said in the log."""
    server = private_redis()
    with Resp(server.url) as admin:
        admin.call("ACL", "SETUSER", "default", "-config")
    broker = RedisBroker.from_url(BrokerURL(f"{server.url}?durability={claim}"))
    assert list(broker.warnings()) == []
    broker.close()
    assert [each.getMessage().count("can't be checked") for each in caplog.records] == [1] * notes
