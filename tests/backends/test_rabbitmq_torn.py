"""Hops that something tears: the server, which is killed between the two halves, or the network. None loses a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from gotasks.broker import BrokerURL, Lease
from gotasks.conformance.kit.proxy import Proxy
from gotasks.errors import BrokerUnavailable
from gotasks_rabbitmq import RabbitBroker, boot, settler
from gotasks_rabbitmq.address import Address
from gotasks_rabbitmq.boot import Boot
from gotasks_rabbitmq.names import Names
from gotasks_rabbitmq.publisher import Publisher, Unconfirmed
from gotasks_rabbitmq.wire import Connection
from tests.backends.contract import QUEUE, eventually, put, take, take_one, write
from tests.rabbit_server import FIRST, PrivateRabbit, QueueProcess, channel, namespaced

Call = Callable[[], frozenset[str]]


@pytest.fixture
def private_url(private_rabbit: PrivateRabbit) -> Iterator[str]:
    with namespaced(private_rabbit.url) as url:
        yield url


@contextmanager
def opened(url: str, timeout: int = 5) -> Iterator[RabbitBroker]:
    broker = RabbitBroker.from_url(BrokerURL(f"{url}&timeout={timeout}"))
    yield broker
    broker.close()


def name(url: str) -> str:
    return Names(BrokerURL(url).params["namespace"]).tasks(QUEUE)


def held(broker: RabbitBroker) -> Lease:
    """The lease of a task that was put back once."""
    put(broker)
    broker.checkpoint([write(take_one(broker), b"old")])
    return take_one(broker)


def repeated(call: Call) -> frozenset[str]:
    """Call until that is answered, as the engine does; the answer."""
    answers: list[frozenset[str]] = []

    def answered() -> bool:
        with suppress(BrokerUnavailable):
            answers.append(call())
        return bool(answers)

    eventually(answered, what="an answer", within=60)
    return answers[0]


def found(broker: RabbitBroker, count: int) -> list[Lease]:
    """All that is there, which must be so much."""
    leases: list[Lease] = []

    def there() -> bool:
        with suppress(BrokerUnavailable):
            leases.extend(take(broker, 9, wait=0.2))
        return len(leases) >= count

    eventually(there, what=f"{count} tasks", within=30)
    with suppress(BrokerUnavailable):
        leases.extend(take(broker, 9, wait=1.0))
    return leases


def seen(leases: list[Lease]) -> list[tuple[bytes, int]]:
    """Bodies and deaths."""
    return sorted((each.envelope.body, each.deaths) for each in leases)


# -- the server is killed -------------------------------------------------------------------------------------


@pytest.mark.timeout(180)
def test_a_hop_of_which_the_server_has_only_the_ack_is_stored_again(
    private_url: str, private_rabbit: PrivateRabbit
) -> None:
    """The log has the ack first. Here the server is killed before it has the message.

    What is stored again counts as having died, for ever: no step of it is begun that mustn't be begun twice.
    """
    queue = QueueProcess(private_rabbit, name(private_url))
    with opened(private_url) as broker, ThreadPoolExecutor(1) as pool:
        lease = held(broker)
        hop: Call = lambda: broker.checkpoint([write(lease, b"new")])  # noqa: E731 - once is here, often is below
        with queue.still():
            first = pool.submit(hop)
            queue.hop_waits()
            queue.ask()
        queue.answers()
        private_rabbit.kill()
        with pytest.raises(BrokerUnavailable):
            first.result(30)
        private_rabbit.start()
        assert repeated(hop) == {lease.receipt}
        leases = found(broker, 1)
        assert seen(leases) == [(b"new", 1)]
        broker.checkpoint([write(leases[0], b"newer")])
        assert seen(found(broker, 1)) == [(b"newer", 1)]


@pytest.mark.timeout(180)
def test_a_hop_of_which_the_server_has_nothing_is_stored_beside_the_old_body(
    private_url: str, private_rabbit: PrivateRabbit
) -> None:
    """Both count as having died."""
    queue = QueueProcess(private_rabbit, name(private_url))
    with opened(private_url) as broker, ThreadPoolExecutor(1) as pool:
        lease = held(broker)
        hop: Call = lambda: broker.release([write(lease, b"new")])  # noqa: E731 - as above
        with queue.still():
            first = pool.submit(hop)
            queue.hop_waits()
            private_rabbit.kill()
            private_rabbit.start()
            with pytest.raises(BrokerUnavailable):
                first.result(30)
        assert repeated(hop) == {lease.receipt}
        assert seen(found(broker, 2)) == [(b"new", 1), (b"old", 1)]


# -- the queue stands still -----------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_a_hop_that_is_answered_too_late_isnt_believed(
    private_url: str, private_rabbit: PrivateRabbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue takes no message of a new channel that it doesn't answer for long, and the server commits the ack."""
    queue = QueueProcess(private_rabbit, name(private_url))
    private_rabbit.eval("application:set_env(kernel, net_ticktime, 1)")  # so "long" is 6 s, not 65
    monkeypatch.setattr(settler, "_BELIEVED", 4.0)
    try:
        with opened(private_url) as broker, ThreadPoolExecutor(1) as pool:
            lease = held(broker)
            hop: Call = lambda: broker.checkpoint([write(lease, b"new")])  # noqa: E731 - as above
            with queue.still(FIRST):
                first = pool.submit(hop)
                with pytest.raises(BrokerUnavailable):
                    first.result(30)
                queue.hop_waits()
            repeated(hop)
            assert seen(found(broker, 1)) == [(b"new", 1)]
    finally:
        private_rabbit.eval("application:set_env(kernel, net_ticktime, 60)")


# -- the network is cut ---------------------------------------------------------------------------------------


@pytest.fixture
def proxy(private_rabbit: PrivateRabbit) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", private_rabbit.port) as proxy:
        yield proxy


def test_a_hop_is_whole_though_its_client_ends_before_the_queue_comes_to_it(
    private_url: str, private_rabbit: PrivateRabbit, proxy: Proxy
) -> None:
    """As when a worker is killed on a busy machine: whoever comes next finds the task, and once."""
    queue = QueueProcess(private_rabbit, name(private_url))
    with opened(proxy.through(private_url)) as broker, ThreadPoolExecutor(1) as pool:
        lease = held(broker)
        with queue.still():
            hop = pool.submit(broker.checkpoint, [write(lease, b"new")])
            queue.hop_waits()
            proxy.cut()
            queue.is_told_of_an_end()
            with pytest.raises(BrokerUnavailable):
                hop.result(30)
    with opened(private_url) as other:
        assert seen(found(other, 1)) == [(b"new", 0)]


def test_a_hop_whose_answer_is_cut_off_is_there_once(private_url: str, proxy: Proxy) -> None:
    """The server went on, so the transaction was carried out as a whole, or wasn't at all."""
    with opened(proxy.through(private_url)) as broker, ThreadPoolExecutor(1) as pool:
        lease = held(broker)
        hop: Call = lambda: broker.checkpoint([write(lease, b"new")])  # noqa: E731 - as above
        with proxy.holding("replies"):
            first = pool.submit(hop)
            with opened(private_url) as other:
                eventually(lambda: other.stats(QUEUE).ready == 1, what="the new body")
            proxy.cut()
            with pytest.raises(BrokerUnavailable):
                first.result(30)
        assert repeated(hop) == {lease.receipt}
        assert seen(found(broker, 1)) == [(b"new", 0)]


def test_a_hop_that_no_queue_takes_isnt_lost_in_a_cut(private_url: str, proxy: Proxy) -> None:
    """Its queue is deleted, and before that is answered the connection ends: the task is nowhere but here.

    It might as well have been taken before that, so it counts as begun.
    """
    with opened(proxy.through(private_url)) as broker, ThreadPoolExecutor(1) as pool:
        lease = held(broker)
        hop: Call = lambda: broker.checkpoint([write(lease, b"new")])  # noqa: E731 - as above
        with channel(private_url) as other:
            other.queue_delete(name(private_url))
        with proxy.holding("replies"):
            before = proxy.passed["requests"]
            first = pool.submit(hop)
            eventually(lambda: proxy.passed["requests"] > before, what="the hop on its way")
            proxy.cut()
            with pytest.raises(BrokerUnavailable):
                first.result(30)
        assert repeated(hop) == {lease.receipt}
        assert seen(found(broker, 1)) == [(b"new", 1)]


@pytest.mark.timeout(120)
def test_a_hop_that_no_queue_took_isnt_lost_in_a_later_cut(
    private_url: str, private_rabbit: PrivateRabbit, proxy: Proxy
) -> None:
    """That was answered, and the queue couldn't be made again before the connection ended."""
    with opened(proxy.through(private_url)) as broker:
        lease = held(broker)
        hop: Call = lambda: broker.checkpoint([write(lease, b"new")])  # noqa: E731 - as above
        with channel(private_url) as other:
            other.queue_delete(name(private_url))
        private_rabbit.ctl("set_permissions", "guest", "^$", ".*", ".*")
        try:
            with pytest.raises(BrokerUnavailable, match="refused"):
                hop()
            proxy.cut()
        finally:
            private_rabbit.ctl("set_permissions", "guest", ".*", ".*", ".*")
        assert repeated(hop) == {lease.receipt}
        assert seen(found(broker, 1)) == [(b"new", 0)]


def test_what_may_have_been_stored_counts_as_begun_where_it_is_stored_again(
    private_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No queue took the hop, and when it was stored in a new one, the confirm didn't come."""
    confirmed = Publisher.store
    cut = [True]

    async def store(self: Publisher, *args: Any, **kwargs: Any) -> None:
        await confirmed(self, *args, **kwargs)
        if cut and cut.pop():
            raise Unconfirmed("its confirm was cut off")

    with opened(private_url) as broker:
        lease = held(broker)
        with channel(private_url) as other:
            other.queue_delete(name(private_url))
        monkeypatch.setattr(Publisher, "store", store)
        hop: Call = lambda: broker.checkpoint([write(lease, b"new")])  # noqa: E731 - as above
        with pytest.raises(BrokerUnavailable, match="cut off"):
            hop()
        assert repeated(hop) == frozenset()
        assert seen(found(broker, 2)) == [(b"new", 0), (b"new", 1)]


# -- which start of the server it is --------------------------------------------------------------------------


@pytest.mark.timeout(180)
def test_one_start_of_the_server_has_one_name_and_the_next_another(private_rabbit: PrivateRabbit) -> None:
    async def names() -> set[bytes]:
        address = Address.of(BrokerURL(private_rabbit.url))
        connections = [await Connection.open(address, "test") for _ in range(3)]
        try:
            return set(await asyncio.gather(*(Boot(each).name() for each in connections)))
        finally:
            await asyncio.gather(*(each.close(1.0) for each in connections))

    (first,) = asyncio.run(names())
    assert asyncio.run(names()) == {first}
    private_rabbit.restart()
    (second,) = asyncio.run(names())
    private_rabbit.kill()
    private_rabbit.start()
    (third,) = asyncio.run(names())
    assert len({b"", first, second, third}) == 4


@pytest.mark.parametrize(
    "name", ["", "amq.rabbitmq.reply-to", "amq.rabbitmq.reply-to.?.key", "a.b.c.AAAA.key"]
)
def test_a_name_that_isnt_understood_says_nothing(name: str) -> None:
    assert boot.read(name) == b""
