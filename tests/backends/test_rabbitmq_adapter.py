"""What the conformance suite does to a RabbitMQ server, and that it does nothing else."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pika
import pytest

from gotasks.broker import BrokerURL, Envelope, Lease
from gotasks.conformance.adapter import MissingHook, NotApplicable
from gotasks.errors import BrokerUnavailable
from gotasks_rabbitmq import RabbitBroker
from gotasks_rabbitmq.conformance import RabbitAdapter
from gotasks_rabbitmq.names import USED, Names
from tests.backends.contract import eventually
from tests.rabbit_server import PrivateRabbit, channel


def opened(url: str) -> RabbitBroker:
    return RabbitBroker.from_url(BrokerURL(url))


def taken(broker: RabbitBroker, queue: str = "orders") -> list[Lease]:
    return broker.acquire(queue, limit=10, wait=5, lease_for=60)


@pytest.mark.parametrize("url", ["amqp://me:a%2Fb@host:1/shop?timeout=7", "amqps://host/?namespace=other"])
def test_a_place_differs_in_its_namespace_only(url: str) -> None:
    before, place = BrokerURL(url), BrokerURL(RabbitAdapter(url).url("mine"))
    assert place.params == {**before.params, "namespace": "mine"}
    for name in ("scheme", "user", "password", "hosts", "path"):
        assert getattr(place, name) == getattr(before, name)
    opened(place.raw).close()  # it is understood


def test_the_way_by_a_proxy() -> None:
    adapter = RabbitAdapter("amqp://host")
    assert adapter.endpoint("amqp://host") == ("host", 5672)
    assert adapter.endpoint("amqps://") == ("127.0.0.1", 5671)
    assert adapter.through("amqp://me:secret@host:1/%2F?timeout=7", 5) == (
        "amqp://me:secret@127.0.0.1:5/%2F?timeout=7"
    )
    secure = BrokerURL(adapter.through("amqps://host/?ssl_ca_certs=ca.pem", 5))
    assert secure.params == {"ssl_ca_certs": "ca.pem", "ssl_check_hostname": "false"}


def test_only_what_is_in_the_place_is_dropped(rabbitmq_url: str) -> None:
    adapter = RabbitAdapter(rabbitmq_url)
    mine = adapter.url("test-mine-to-drop")
    for place in (mine, rabbitmq_url):
        broker = opened(place)
        broker.enqueue([Envelope(id=f"t{each}", queue="orders", body=b"x") for each in range(7)])
        broker.close()
    assert len(adapter.dump(mine)) == len(adapter.dump(rabbitmq_url)) == 7
    adapter.drop(mine)
    assert adapter.dump(mine) == {}
    assert len(adapter.dump(rabbitmq_url)) == 7
    adapter.drop(mine)


def test_what_other_processes_have_used_is_dropped_where_it_is_told(rabbitmq_url: str) -> None:
    adapter, place = RabbitAdapter(rabbitmq_url), BrokerURL(rabbitmq_url).params["namespace"]
    broker = opened(rabbitmq_url)
    broker.enqueue([Envelope(id="a", queue="theirs", body=b"x")])
    broker.close()
    USED.pop(place)  # as if that had been another process
    adapter.drop(rabbitmq_url)
    with channel(rabbitmq_url) as other:
        other.queue_declare(Names(place).tasks("theirs"), passive=True)  # it is there still
    USED.pop(place)
    adapter.used(rabbitmq_url, ["theirs"])
    adapter.drop(rabbitmq_url)
    with (
        channel(rabbitmq_url) as other,
        pytest.raises(pika.exceptions.ChannelClosedByBroker, match="no queue"),
    ):
        other.queue_declare(Names(place).tasks("theirs"), passive=True)


def test_a_stranger_has_always_the_same_id(rabbitmq_url: str) -> None:
    adapter = RabbitAdapter(rabbitmq_url)
    adapter.put_raw(rabbitmq_url, "orders", b"\x00 not ours")
    ids = []
    for deaths in range(2):
        broker = opened(rabbitmq_url)
        (lease,) = taken(broker)
        assert (lease.envelope.body, lease.deaths) == (b"\x00 not ours", deaths)
        ids.append(lease.envelope.id)
        broker.close()
    assert ids[0] == ids[1]
    with pytest.raises(NotApplicable, match="one message"):
        adapter.evict(rabbitmq_url, "any")


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("rabbit_program")
def test_a_server_of_its_own_is_killed_filled_and_disturbed(tmp_path: Path) -> None:
    adapter = RabbitAdapter(
        "amqps://me:secret@host/shop?namespace=x&timeout=2&ssl_cert_reqs=none&management=https://host"
    )
    with adapter.server(tmp_path) as server:
        assert BrokerURL(server.url).params == {"timeout": "2"}
        broker = opened(server.url)
        broker.enqueue([Envelope(id="kept", queue="orders", body=b"body")])
        server.kill()
        with pytest.raises(BrokerUnavailable):
            broker.stats("orders")
        server.start()
        assert [lease.envelope.id for lease in taken(broker)] == ["kept"]
        adapter.disturb(server)
        again: list[Lease] = []

        def answered() -> bool:
            with suppress(BrokerUnavailable):  # until it has noticed that its connection is gone
                again.extend(taken(broker))
            return bool(again)

        eventually(answered, what="an answer")
        assert [(lease.envelope.id, lease.deaths) for lease in again] == [("kept", 1)]
        with adapter.full(server), pytest.raises(BrokerUnavailable, match="alarm"):
            broker.enqueue([Envelope(id="unknown", queue="orders", body=b"body")])
        broker.enqueue([Envelope(id="taken", queue="orders", body=b"body")])
        broker.close()


def test_without_a_program_the_hook_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(PrivateRabbit, "program", lambda name="rabbitmq-server": None)
    with (
        pytest.raises(MissingHook, match="Install rabbitmq-server"),
        RabbitAdapter("amqp://").server(tmp_path),
    ):
        pass


@pytest.mark.parametrize("installed", [True, False])
def test_a_server_evaluates_what_it_is_given(
    private_rabbit: PrivateRabbit, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    program = PrivateRabbit.program

    def without(name: str = "rabbitmq-server") -> str | None:
        return None if name == "erl_call" else program(name)

    if not installed:
        monkeypatch.setattr(PrivateRabbit, "program", staticmethod(without))
    assert "".join(private_rabbit.eval("{1 + 1, [two]}").split()) == "{2,[two]}"
    with pytest.raises(RuntimeError, match="badarith"):
        private_rabbit.eval("1 / 0")


def test_the_version(rabbitmq_url: str) -> None:
    assert RabbitAdapter(rabbitmq_url).server_version(rabbitmq_url).startswith("RabbitMQ ")
