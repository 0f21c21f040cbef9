"""What only Redis can get wrong."""

from __future__ import annotations

import sys
import threading

import pytest

from gotasks import App, ArgsMap
from gotasks.broker import BrokerURL, Envelope, Write
from gotasks.errors import BrokerClosed
from gotasks.events import BrokerDown
from gotasks_redis import RedisBroker
from tests.backends.contract import eventually
from tests.backends.engine import Watch
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


def test_close_leaves_no_connection_of_a_wait_open(redis_url: str) -> None:
    broker = RedisBroker.from_url(BrokerURL(redis_url))
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            broker.acquire("nothing-comes", limit=1, wait=10, lease_for=10)
        except BrokerClosed as error:
            ended.append(error)

    with Resp(redis_url) as server:

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
