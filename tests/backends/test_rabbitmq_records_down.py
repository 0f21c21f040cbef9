"""RabbitMQ beside a record store: what goes on while it is down, and what the conformance suite does to the two."""

from __future__ import annotations

import pickle
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gotasks import App
from gotasks.broker import BrokerURL
from gotasks.conformance.kit.proxy import Proxy
from gotasks.discovery import open_broker
from gotasks_rabbitmq.conformance import RabbitAdapter
from gotasks_rabbitmq.recorded_adapter import RecordedAdapter
from tests.backends.contract import eventually, ids_of, put, take, take_one
from tests.backends.engine import PATIENCE, QUEUE, Engine
from tests.backends.recorded import nobody_looks, pointers, recorded_url, told
from tests.rabbit_server import PrivateRabbit, namespaced


@pytest.fixture(params=["redis", "sqlite"])
def url(request: pytest.FixtureRequest, rabbitmq_url: str) -> str:
    """An empty place on RabbitMQ, and one in a store."""
    store: str = request.getfixturevalue(f"{request.param}_url")
    return recorded_url(rabbitmq_url, store)


# -- RabbitMQ that is down ----------------------------------------------------------------------------------


@pytest.fixture
def private_url(private_rabbit: PrivateRabbit, redis_url: str) -> Iterator[str]:
    """A place on a RabbitMQ server that a test may stop, and in a store that goes on."""
    with namespaced(private_rabbit.url) as line:
        yield recorded_url(f"{line}&timeout=2", redis_url)


@pytest.mark.timeout(180)
def test_while_rabbitmq_is_down_all_goes_on(
    private_url: str,
    private_rabbit: PrivateRabbit,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nobody_looks(monkeypatch)
    producer, engine = App(private_url), Engine(private_url)
    producer.register("job", engine.keep)
    engine.app.register("job", engine.keep)
    engine.app.queue(QUEUE)
    queue = producer.queue(QUEUE)
    with engine.app.worker():
        queue.enqueue("job").wait(timeout=PATIENCE)
        private_rabbit.stop()
        try:
            for _ in range(3):
                queue.enqueue("job").wait(timeout=PATIENCE)
            late = queue.enqueue("job", delay=0.3)
            late.wait(timeout=PATIENCE)
            assert told(caplog, "left alone until it works again") == 2  # by the producer, and by the worker
        finally:
            private_rabbit.start()
        eventually(lambda: told(caplog, "RabbitMQ works again") == 2, within=60, what="both are back")
        queue.enqueue("job").wait(timeout=PATIENCE)
        producer.queue("other").enqueue("job")
        assert pointers(private_url, "other") == 1
        assert told(caplog, "left alone") == 2
    producer.close()
    engine.close()


@pytest.mark.timeout(120)
def test_a_worker_begins_without_rabbitmq(redis_url: str) -> None:
    engine, producer = Engine(recorded_url("amqp://127.0.0.1:1?connect_timeout=1", redis_url)), App(redis_url)
    engine.app.register("job", engine.keep)
    engine.app.queue(QUEUE)
    producer.external("job")
    assert any("127.0.0.1:1" in each for each in engine.broker.warnings())
    with engine.app.worker():
        producer.queue(QUEUE).enqueue("job").wait(timeout=PATIENCE)
    engine.close()
    producer.close()


def test_a_rabbitmq_that_doesnt_answer_is_waited_for_once(
    rabbitmq_url: str, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    ((host, port),) = BrokerURL(rabbitmq_url).hosts
    with Proxy(host, port or 5672) as proxy:
        broker = open_broker(recorded_url(f"{proxy.through(rabbitmq_url)}&timeout=1", redis_url))
        put(broker)
        take_one(broker, wait=5)
        with proxy.black_hole():
            with ThreadPoolExecutor(8) as pool:  # each waits a second, at the same time
                sent = [task for tasks in pool.map(lambda _: put(broker), range(8)) for task in tasks]
            began = time.monotonic()
            sent += [task for _ in range(20) for task in put(broker)]
            leases = take(broker, len(sent))
            assert time.monotonic() - began < 1.0
        assert sorted(ids_of(leases)) == sorted(sent)
        assert told(caplog, "left alone until it works again: amqp://") == 1
        eventually(lambda: told(caplog, "RabbitMQ works again") == 1, within=30, what="it's back")
        put(broker, queue="other")
        assert pointers(rabbitmq_url, "other") == 1
        broker.close()


def test_an_alarm_costs_no_enqueue(
    private_url: str, private_rabbit: PrivateRabbit, caplog: pytest.LogCaptureFixture
) -> None:
    broker = open_broker(private_url)
    put(broker)
    with private_rabbit.alarm():
        put(broker, 2)
        assert len(take(broker, 3, wait=5)) == 3
        assert told(caplog, "left alone") == 1
    eventually(lambda: told(caplog, "RabbitMQ works again") == 1, within=30, what="it's back")
    put(broker, queue="other")
    assert pointers(private_url, "other") == 1
    broker.close()


# -- the adapter of the conformance suite ---------------------------------------------------------------------


def test_a_place_is_one_on_each(url: str) -> None:
    adapter = RabbitAdapter(url)
    assert isinstance(adapter, RecordedAdapter)
    assert isinstance(pickle.loads(pickle.dumps(adapter)), RecordedAdapter)  # noqa: S301 - its own
    name = f"test-{secrets.token_hex(8)}"
    place = adapter.url(name)
    here, there = BrokerURL(url), BrokerURL(place)
    assert (there.hosts, there.params["namespace"]) == (here.hosts, name)
    assert there.params["records"] != here.params["records"]
    broker = open_broker(place)
    put(broker, 3)
    broker.close()
    found = list(adapter.dump(place))
    assert sum(each.startswith("pointer") for each in found) == 3
    assert len(found) >= 6
    adapter.drop(place)
    assert adapter.dump(place) == {}
    adapter.drop(place)


def test_what_is_looked_at_through_a_proxy_is_the_store() -> None:
    adapter = RabbitAdapter(recorded_url("amqp://me:secret@here:1/shop", "redis://there:2/3"))
    assert adapter.endpoint(adapter.broker_url) == ("there", 2)
    through = BrokerURL(adapter.through(adapter.broker_url, 9))
    assert (through.hosts, through.params["records"]) == ((("here", 1),), "redis://127.0.0.1:9/3")


def test_a_task_loses_its_record_and_leaves_its_pointer(url: str) -> None:
    broker = open_broker(url)
    (task,) = put(broker)
    RabbitAdapter(url).evict(url, task)
    assert broker.get([task]) == {}
    assert pointers(url) == 1
    assert take(broker) == []
    assert pointers(url) == 0
    broker.close()
