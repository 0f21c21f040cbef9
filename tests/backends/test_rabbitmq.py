"""What only RabbitMQ can get wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from pika.exceptions import ChannelClosedByBroker

from gotasks.broker import BrokerURL, Envelope, Lease, Write
from gotasks.conformance.kit.proxy import Proxy
from gotasks.errors import BrokerUnavailable, InvalidURL, Rejected, Unsupported
from gotasks_rabbitmq import RabbitBroker
from gotasks_rabbitmq.names import Names
from gotasks_rabbitmq.queues import Queues, arguments
from tests.backends.contract import eventually
from tests.rabbit_server import PrivateRabbit, channel, consumer_timeout, namespaced

QUORUM = {"x-queue-type": "quorum"}


def opened(url: str) -> RabbitBroker:
    return RabbitBroker.from_url(BrokerURL(url))


def put(broker: RabbitBroker, *ids: str, queue: str = "orders") -> None:
    broker.enqueue([Envelope(id=each, queue=queue, body=b"old") for each in ids])


def take(broker: RabbitBroker, limit: int = 1, *, queue: str = "orders", wait: float = 5.0) -> list[Lease]:
    return broker.acquire(queue, limit=limit, wait=wait, lease_for=60)


def write(lease: Lease, body: bytes = b"new", queue: str | None = None) -> Write:
    return Write(lease=lease, body=body, seq=1, queue=queue)


def name(url: str, queue: str) -> str:
    return Names(BrokerURL(url).params["namespace"]).tasks(queue)


def is_there(url: str, queue: str) -> bool:
    """Whether the server has a queue of this name."""
    with channel(url) as asking:
        try:
            asking.queue_declare(queue, passive=True)
        except ChannelClosedByBroker:
            return False
    return True


@pytest.fixture
def broker(rabbitmq_url: str) -> Iterator[RabbitBroker]:
    broker = opened(rabbitmq_url)
    yield broker
    broker.close()


@pytest.fixture
def private_url(private_rabbit: PrivateRabbit) -> Iterator[str]:
    """A namespace of a server on which a test may raise alarms."""
    with namespaced(private_rabbit.url) as url:
        yield url


@pytest.fixture
def private(private_url: str) -> Iterator[RabbitBroker]:
    broker = opened(f"{private_url}&timeout=2")
    yield broker
    broker.close()


# -- the URL ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query, says",
    [
        ("namespace=a.b", "namespace"),
        ("namespace=", "namespace"),
        ("queue_type=classic", "a crash of the server loses tasks"),
        ("consumer_timeout=soon", "seconds"),
        ("heartbeat=0", "at least 1"),
        ("ssl_certfile=x", "no parameter"),
        ("max_retries=3", "no parameter"),
    ],
)
def test_what_a_url_may_not_say(query: str, says: str) -> None:
    with pytest.raises(InvalidURL, match=says):
        opened(f"amqp://me:secret@host/?{query}")


@pytest.mark.parametrize(
    "path, host",
    [("", "/"), ("/", "/"), ("/%2F", "/"), ("/shop", "shop"), ("/a%2Fb", "a/b")],
)
def test_the_path_is_the_virtual_host(path: str, host: str) -> None:
    parameters = opened(f"amqp://host{path}")._address.parameters("test")
    assert (parameters.virtual_host, parameters.port) == (host, 5672)


def test_the_limits_are_what_the_url_says_of_the_server() -> None:
    assert opened("amqp://host").limits.max_lease == 1800
    assert opened("amqp://host?consumer_timeout=60").limits.max_lease == 60
    assert opened("amqp://host?consumer_timeout=none").limits.max_lease is None


def test_tls_is_as_the_url_says() -> None:
    options = opened("amqps://host")._address.parameters("test")
    assert options.port == 5671
    assert options.ssl_options.context.check_hostname
    options = opened("amqps://host?ssl_cert_reqs=none")._address.parameters("test")
    assert not options.ssl_options.context.check_hostname


# -- queues -----------------------------------------------------------------------------------------------


def test_its_queues_are_durable_quorum_queues(broker: RabbitBroker, rabbitmq_url: str) -> None:
    put(broker, "a")
    with channel(rabbitmq_url) as other:
        other.queue_declare(name(rabbitmq_url, "orders"), durable=True, arguments=QUORUM)  # or it raises


def test_a_limit_of_deliveries_is_switched_off_where_there_is_one_by_default() -> None:
    assert arguments((3, 10, 8)) == arguments((3, 13)) == QUORUM
    assert arguments((4, 0)) == arguments((4, 3, 1)) == {**QUORUM, "x-delivery-limit": -1}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {**QUORUM, "x-max-length": 10},
        {**QUORUM, "x-message-ttl": 60_000},
        {**QUORUM, "x-expires": 60_000},
        {**QUORUM, "x-delivery-limit": 3},
        {**QUORUM, "x-single-active-consumer": True},
    ],
)
def test_a_queue_that_may_lose_tasks_is_refused(
    broker: RabbitBroker, rabbitmq_url: str, given: dict[str, Any]
) -> None:
    with channel(rabbitmq_url) as other:
        other.queue_declare(name(rabbitmq_url, "orders"), durable=True, arguments=given)
    for call in (lambda: put(broker, "a"), lambda: take(broker, wait=0)):
        with pytest.raises(BrokerUnavailable, match="Tasks may be lost there: delete it, or choose another"):
            call()


def test_a_queue_that_differs_otherwise_is_told_of(
    broker: RabbitBroker, rabbitmq_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with channel(rabbitmq_url) as other:
        arguments = {**QUORUM, "x-dead-letter-exchange": "amq.direct"}
        other.queue_declare(name(rabbitmq_url, "orders"), durable=True, arguments=arguments)
    put(broker, "a")
    assert [lease.envelope.id for lease in take(broker)] == ["a"]
    assert "x-dead-letter-exchange" in caplog.text


def test_a_queue_that_is_deleted_under_its_tasks_is_made_again(
    broker: RabbitBroker, rabbitmq_url: str
) -> None:
    put(broker, "held", "moved", "gone")
    held, moved = take(broker, 2)
    put(broker, "there", queue="fatal")
    with channel(rabbitmq_url) as other:
        for queue in ("orders", "fatal"):
            other.queue_delete(name(rabbitmq_url, queue))
    assert broker.checkpoint([write(held)]) == frozenset()
    assert broker.release([write(moved, queue="fatal")]) == frozenset()
    put(broker, "new")
    found = {lease.envelope.id: lease.envelope.body for lease in take(broker, 5)}
    assert found == {"held": b"new", "new": b"old"}
    assert [lease.envelope.id for lease in take(broker, 5, queue="fatal")] == ["moved"]


def test_many_who_make_a_queue_at_once_make_it_once(rabbitmq_url: str) -> None:
    brokers = [opened(rabbitmq_url) for _ in range(6)]
    errors: list[BaseException] = []

    def use(broker: RabbitBroker, number: int) -> None:
        try:
            put(broker, f"t{number}")
            take(broker, wait=0)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(each, number)) for number, each in enumerate(brokers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in brokers:
        each.close()
    assert errors == []


# -- what isn't there -------------------------------------------------------------------------------------


def test_the_queue_for_a_moment_ends_though_its_client_does_first(
    broker: RabbitBroker, rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking, names = Queues.asking, list[str]()

    async def ends_before_the_last(self: Queues, method: str, *args: Any, **kwargs: Any) -> Any:
        queue = str(args[0]) if args else ""
        if method == "queue_delete" and queue in names:
            return None
        if method == "queue_declare" and "::flush:" in queue:
            names.append(queue)
        return await asking(self, method, *args, **kwargs)

    monkeypatch.setattr(Queues, "asking", ends_before_the_last)
    monkeypatch.setattr("gotasks_rabbitmq.queues._MOMENT", 1500)
    put(broker, "a")
    (flushed,) = names
    assert is_there(rabbitmq_url, flushed)
    eventually(lambda: not is_there(rabbitmq_url, flushed), what="the end of the queue")


def test_what_rabbitmq_cannot_do_is_refused(broker: RabbitBroker) -> None:
    with pytest.raises(Unsupported, match="DELAY"):
        broker.enqueue([Envelope(id="a", queue="orders", body=b"", delay=1)])
    with pytest.raises(Unsupported, match="BROWSE"):
        broker.acquire("orders", limit=1, wait=0, lease_for=1, ids=["a"])


# -- leases -----------------------------------------------------------------------------------------------


def test_order_is_kept_within_an_acquire(broker: RabbitBroker) -> None:
    ids = [f"t{number}" for number in range(100)]
    put(broker, *ids)
    assert [lease.envelope.id for lease in take(broker, 3)] == ids[:3]
    assert [lease.envelope.id for lease in take(broker, 97)] == ids[3:]


def test_a_lease_that_is_held_for_too_long_is_lost_alone(
    private: RabbitBroker, private_rabbit: PrivateRabbit, caplog: pytest.LogCaptureFixture
) -> None:
    put(private, "long")
    with consumer_timeout(private_rabbit, 3):  # for channels that are opened now
        (long,) = take(private)
    put(private, "short")
    (short,) = take(private)

    def lost() -> bool:
        return private.extend([long, short], lease_for=60) == {long.receipt}

    eventually(lost, what="the end of the lease", within=20)
    assert private.checkpoint([write(long), write(short)]) == {long.receipt}
    assert "RabbitMQ took task long of 'orders' back" in caplog.text
    assert "timed out" in caplog.text
    found = {lease.envelope.id: (lease.envelope.body, lease.deaths) for lease in take(private, 2)}
    assert found == {"long": (b"old", 1), "short": (b"new", 0)}


# -- alarms -----------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_what_is_written_during_an_alarm_is_written_after_it(
    private: RabbitBroker, private_rabbit: PrivateRabbit, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    put(private, "kept", "ended", "moved")
    leases = take(private, 3)
    calls: list[Callable[[], frozenset[str]]] = [
        lambda: private.checkpoint([write(leases[0])]),
        lambda: private.ack([write(leases[1])], keep_for=0),
        lambda: private.release([write(leases[2], queue="fatal")]),
    ]
    with private_rabbit.alarm(kind):
        for call in calls:
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="takes no writes"):
                call()
            assert time.monotonic() - began < 5
        with pytest.raises(BrokerUnavailable):
            put(private, "unknown")
        with pytest.raises(Rejected, match="takes no tasks"):
            put(private, "refused")
        with pytest.raises(BrokerUnavailable, match="takes no writes"):
            take(private, wait=0)
    assert "RabbitMQ takes no writes: low on" in caplog.text
    for call in calls:
        answers: list[frozenset[str]] = []

        def answered(
            call: Callable[[], frozenset[str]] = call, answers: list[frozenset[str]] = answers
        ) -> bool:
            with suppress(BrokerUnavailable):
                answers.append(call())
            return bool(answers)

        eventually(answered, what="an answer")
        # If it was carried out before it was repeated, its lease has ended with that.
        assert len(answers[0]) <= 1
    found = {lease.envelope.id: (lease.envelope.body, lease.deaths) for lease in take(private, 9)}
    assert found == {"kept": (b"new", 0)} | ({"unknown": (b"old", 0)} if "unknown" in found else {})
    (moved,) = take(private, 9, queue="fatal")
    assert (moved.envelope.id, moved.deaths) == ("moved", 0)


# -- the network ------------------------------------------------------------------------------------------


def test_what_was_leased_for_nobody_is_offered_again(rabbitmq_url: str) -> None:
    parsed = BrokerURL(rabbitmq_url)
    ((host, port),) = parsed.hosts
    with Proxy(host, port or 5672) as proxy:
        through = rabbitmq_url.replace(f"{host}:{port}", f"127.0.0.1:{proxy.port}")
        slow, other = opened(f"{through}&timeout=1"), opened(rabbitmq_url)
        ids = [f"t{number}" for number in range(6)]
        put(other, *ids)
        assert (
            slow.ack([write(each) for each in take(slow)], keep_for=0) == frozenset()
        )  # it knows of the rest
        with proxy.holding("replies"), pytest.raises(BrokerUnavailable, match="no answer within 1 s"):
            take(slow, 5, wait=0)
        leases: list[Lease] = []

        def all_there() -> bool:
            leases.extend(take(other, 5, wait=0.1))
            return len(leases) == 5

        eventually(all_there, what="the tasks that were leased for nobody")
        assert {lease.deaths for lease in leases} <= {0, 1}
        assert slow.stats("orders").ready == 0  # it works on
        slow.close()
        other.close()
