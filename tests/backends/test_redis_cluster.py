"""Redis Cluster: three nodes, of which one has the slot of a namespace, and slots that are moved meanwhile."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotasks import App, ArgsMap
from gotasks.broker import Broker, BrokerURL
from gotasks.discovery import open_broker
from gotasks.errors import BrokerUnavailable, InvalidURL
from gotasks_redis import RedisBroker
from gotasks_redis.conformance import RedisAdapter
from tests.backends.contract import LONG, envelope, eventually, put, stats, take, take_one, write
from tests.backends.redis_load import Load
from tests.redis_answers import Said, answering
from tests.redis_cluster import SLOTS, PrivateCluster
from tests.redis_server import PrivateRedis, ask
from tests.servers import Servers

pytestmark = pytest.mark.timeout(150)  # a busy machine is no failure


@pytest.fixture(scope="module")
def cluster(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateCluster]:
    if PrivateRedis.binary() is None:
        servers.missing("redis", "no redis-server program on this machine for a cluster")
    cluster = PrivateCluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster.start()
    finally:
        cluster.kill()


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """Each test has one, and with it a slot."""
    name: str = request.node.name
    return re.sub("[^A-Za-z0-9_.-]", "-", name)[:64]


@pytest.fixture
def url(cluster: PrivateCluster, namespace: str) -> str:
    return f"{cluster.url}?namespace={namespace}"


@pytest.fixture
def broker(url: str) -> Iterator[Broker]:
    broker = open_broker(url)
    yield broker
    broker.close()


@pytest.fixture
def key(namespace: str) -> str:
    """Any key of the namespace: all are in one slot."""
    return f"{{{namespace}}}:any"


def other(cluster: PrivateCluster, key: str) -> PrivateRedis:
    """A node that hasn't got the slot of this key."""
    owner = cluster.owner(key)
    return next(node for node in cluster.nodes if node is not owner)


def test_a_slot_is_moved_under_load(
    cluster: PrivateCluster, url: str, key: str, figures: Callable[[str], None]
) -> None:
    load = Load(url)
    moved = []
    with load.running():
        for _ in range(3):
            load.more(200)
            began = time.monotonic()
            keys = cluster.move(key, other(cluster, key))
            moved.append(f"{keys} keys in {(time.monotonic() - began) * 1000:.0f} ms")
        load.more(200)
    figures(f"a slot was moved three times, {', '.join(moved)}: {load}")
    assert (load.lost(), load.twice(), load.fatal) == ([], [], [])
    load.close()


def test_nothing_is_done_while_a_slot_is_on_its_way(
    cluster: PrivateCluster, broker: Broker, url: str, key: str
) -> None:
    """Some of its keys are here, some are there: a script that began would find only a part of what it needs."""
    put(broker, 50)
    broker.enqueue([envelope("last"), envelope("keyed", unique="key"), envelope("high", priority=9)])
    high, *held = take(broker, 3)
    broker.cancel(["last"], keep_for=LONG)
    before = RedisAdapter(url).dump(url)
    calls: list[Callable[[], object]] = [
        lambda: broker.enqueue([envelope("last"), envelope("another")]),
        lambda: take(broker, 5),
        lambda: take_one(broker, task_id="keyed"),
        lambda: broker.extend([high], lease_for=LONG),
        lambda: broker.checkpoint([write(high)]),
        lambda: broker.ack([write(each) for each in held], keep_for=LONG),
        lambda: broker.release([write(high, queue="elsewhere")]),
        lambda: broker.cancel(["keyed"], keep_for=0),
        lambda: broker.purge("orders"),
    ]
    with cluster.moving(key, other(cluster, key)) as some:
        for _ in range(3):
            for call in calls:
                with pytest.raises(BrokerUnavailable, match="the slot of this namespace is being moved"):
                    call()
            assert some(15) == 15
        while some(100):
            pass
    # The names only: what was moved is laid out anew, in another size.
    assert RedisAdapter(url).dump(url).keys() == before.keys()
    assert broker.stats("orders") == stats(ready=49, leased=3)
    assert broker.ack([write(each) for each in (high, *held)], keep_for=0) == frozenset()


def test_a_worker_that_waits_hears_of_a_task_after_a_move(
    cluster: PrivateCluster, url: str, broker: Broker, key: str
) -> None:
    """Its wait was at the node that had the slot."""
    app = App(url)

    @app.job("job")
    def job(args: ArgsMap) -> ArgsMap:
        return args

    queue = app.queue("orders")
    with app.worker("orders"):
        assert queue.enqueue(job, {"n": 1}).wait(20) == {"n": 1}
        cluster.move(key, other(cluster, key))
        assert queue.enqueue(job, {"n": 2}).wait(20) == {"n": 2}
    app.close()


def test_each_namespace_is_on_one_node(cluster: PrivateCluster) -> None:
    """So that many of them are spread; whichever node is asked."""
    owners = set()
    for number, seed in enumerate(cluster.nodes * 4):
        broker = open_broker(f"redis+cluster://127.0.0.1:1,127.0.0.1:{seed.port}?namespace=spread-{number}")
        put(broker, 2)
        owner = cluster.owner(f"{{spread-{number}}}:any")
        owners.add(owner.port)
        assert ask(owner.url, "KEYS", f"{{spread-{number}}}:ready*") == [
            f"{{spread-{number}}}:ready:orders".encode()
        ]
        broker.close()
    assert len(owners) == 3


def test_a_drain(url: str) -> None:
    app = App(url)
    ran = []

    @app.job("job")
    def count(args: ArgsMap) -> None:
        ran.append(args["n"])

    app.queue("orders").enqueue_many(count, [{"n": n} for n in range(500)])
    assert app.drain() == 500
    assert sorted(ran) == list(range(500))
    app.close()


def test_a_replica_takes_over(servers: Servers, tmp_path: Path) -> None:
    """Its master is killed; who had connections to that one asks the others where the slot is."""
    if PrivateRedis.binary() is None:
        servers.missing("redis", "no redis-server program on this machine for a cluster")
    cluster = PrivateCluster(tmp_path)
    try:
        broker = open_broker(cluster.start().url)
        sent = put(broker, 5)
        owner = cluster.owner("{gt}")
        cluster.add_replica(owner)
        owner.kill()

        def found() -> bool:
            try:
                return set(broker.get(sent)) == set(sent)
            except BrokerUnavailable:
                return False

        eventually(found, within=60, what="the replica as a master")
        assert take(broker)
        broker.close()
    finally:
        cluster.kill()


def test_scripts_that_a_node_has_forgotten_are_sent_again(
    cluster: PrivateCluster, broker: Broker, key: str
) -> None:
    put(broker)
    ask(cluster.owner(key).url, "SCRIPT", "FLUSH")
    assert take(broker)


def test_without_its_scheme_a_cluster_is_named(cluster: PrivateCluster, namespace: str, key: str) -> None:
    direct = open_broker(f"{other(cluster, key).url}?namespace={namespace}")
    with pytest.raises(BrokerUnavailable, match=r"is a node of a cluster: write redis\+cluster://"):
        put(direct)
    direct.close()


@pytest.mark.parametrize("view", ["its own slot", "the slot of one that is dead"])
def test_a_node_with_an_old_view_is_not_believed_for_ever(
    cluster: PrivateCluster, namespace: str, view: str
) -> None:
    """It was cut off from the others, and still answers."""
    own: list[int] = []

    def says(words: list[bytes]) -> Said:
        if words[0] != b"CLUSTER":
            return Exception("CLUSTERDOWN The cluster is down")
        return [[0, SLOTS - 1, [b"127.0.0.1", own[0] if view == "its own slot" else 1]]]

    with answering(says) as port:
        own.append(port)
        broker = open_broker(
            f"redis+cluster://127.0.0.1:{port},127.0.0.1:{cluster.nodes[0].port}?namespace={namespace}"
        )
        with pytest.raises(BrokerUnavailable):
            put(broker)
        put(broker)
        broker.close()


def test_nodes_that_can_not_be_reached_are_told() -> None:
    broker = open_broker("redis+cluster://127.0.0.1:1,127.0.0.1:2")
    with pytest.raises(BrokerUnavailable, match=r"127.0.0.1:1: .* 127.0.0.1:2: "):
        broker.stats("orders")
    broker.close()


@pytest.mark.parametrize(
    "url, says",
    [
        ("redis+cluster://", "at least one host"),
        ("redis+cluster://host/1", "no database but 0"),
        ("unix+cluster:///sock", "isn't supported"),
    ],
)
def test_a_url_that_can_not_be_meant_is_refused(url: str, says: str) -> None:
    with pytest.raises(InvalidURL, match=says):
        RedisBroker.from_url(BrokerURL(url))
