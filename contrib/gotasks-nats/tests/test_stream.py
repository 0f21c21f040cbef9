"""What only this broker has: a stream, and views of it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from gotasks.broker import BrokerURL, Envelope, QueueStats, Write
from gotasks.errors import BrokerUnavailable, InvalidURL, PayloadTooLarge
from gotasks_nats import NatsBroker
from gotasks_nats.adapter import NatsAdapter
from gotasks_nats.server import PrivateNats
from gotasks_nats.session import Session
from gotasks_nats.settings import complaints

Make = Callable[[str], NatsBroker]


@pytest.mark.parametrize(
    "url",
    [
        "nats://127.0.0.1/shop",
        "nats://127.0.0.1?namespace=a.b",
        "nats://127.0.0.1?namespace=",
        "nats://127.0.0.1?replicas=0",
        "nats://127.0.0.1?replicas=6",
        "nats://127.0.0.1?timeout=21",
        "nats://127.0.0.1?time=1",
    ],
)
def test_a_url_that_is_not_understood(url: str) -> None:
    with pytest.raises(InvalidURL):
        NatsBroker.from_url(BrokerURL(url))


def test_a_server_that_is_not_there(make_broker: Make) -> None:
    with pytest.raises(BrokerUnavailable, match=r"NATS at 127\.0\.0\.1:1: no connection .*Is it running\?"):
        make_broker("nats://user:secret@127.0.0.1:1").stats("orders")


def test_of_several_servers_one_that_answers_will_do(url: str, make_broker: Make) -> None:
    several = url.replace("nats://", "nats://127.0.0.1:1,", 1)
    assert make_broker(several).stats("orders").ready == 0


def test_what_anybody_publishes_with_a_queue_is_a_task(url: str, make_broker: Make) -> None:
    ours = make_broker(url)
    ours.enqueue([Envelope(id="one", queue="orders", body=b"body")])
    NatsAdapter(url).put_raw(url, "orders", b"\xff by hand")
    NatsAdapter(url).put_raw(url, "orders", b"\xff by hand")

    leases = ours.acquire("orders", limit=5, wait=0, lease_for=10)
    assert [each.envelope.body for each in leases] == [b"body", b"\xff by hand", b"\xff by hand"]
    writes = [Write(lease=each, body=b"", seq=1) for each in leases]
    assert ours.ack(writes, keep_for=0) == frozenset()
    assert NatsAdapter(url).dump(url) == {}


def test_what_has_gone_without_a_word_is_no_task_any_more(url: str, make_broker: Make) -> None:
    ours = make_broker(url)
    ours.enqueue([Envelope(id=each, queue="orders", body=b"") for each in ("one", "two")])
    assert ours.stats("orders").ready == 2
    NatsAdapter(url).evict(url, "one")

    leases = ours.acquire("orders", limit=2, wait=0, lease_for=10)
    assert [each.envelope.id for each in leases] == ["two"]
    assert ours.stats("orders") == QueueStats(ready=0, scheduled=0, leased=1)


def test_a_removal_is_seen_by_others(url: str, make_broker: Make) -> None:
    ours, others = make_broker(url), make_broker(url)
    ours.enqueue([Envelope(id=str(each), queue="orders", body=b"") for each in range(50)])
    assert others.stats("orders").ready == 50
    leases = ours.acquire("orders", limit=20, wait=0, lease_for=10)
    ours.ack([Write(lease=each, body=b"", seq=1) for each in leases], keep_for=0)
    assert others.stats("orders") == QueueStats(ready=30, scheduled=0, leased=0)
    assert ours.purge("orders") == 30
    assert others.stats("orders") == QueueStats(ready=0, scheduled=0, leased=0)


def test_a_body_beyond_the_limit_is_refused_by_name(make_broker: Make, url: str) -> None:
    ours = make_broker(url)
    with pytest.raises(PayloadTooLarge) as raised:
        ours.enqueue([Envelope(id="one", queue="orders", body=b"x" * 1_000_001)])
    assert raised.value.ids == {"one"}
    assert ours.stats("orders").ready == 0


def test_a_restart_keeps_all(private_nats: PrivateNats, make_broker: Make) -> None:
    ours = make_broker(private_nats.url)
    ours.enqueue([Envelope(id=str(each), queue="orders", body=b"old") for each in range(30)])
    held = ours.acquire("orders", limit=10, wait=0, lease_for=60)
    ours.checkpoint([Write(lease=each, body=b"new", seq=1) for each in held])
    ours.ack([Write(lease=each, body=b"", seq=2) for each in held[:5]], keep_for=0)
    private_nats.stop()
    private_nats.start()

    assert _answered(ours) == QueueStats(ready=20, scheduled=0, leased=5)
    assert ours.ack([Write(lease=each, body=b"", seq=2) for each in held], keep_for=0) == {
        each.receipt for each in held[:5]
    }


def test_a_kill_of_the_server_loses_nothing_that_was_confirmed(
    private_nats: PrivateNats, make_broker: Make
) -> None:
    ours = make_broker(private_nats.url)
    for each in range(20):
        ours.enqueue([Envelope(id=str(each), queue="orders", body=b"old")])
    held = ours.acquire("orders", limit=10, wait=0, lease_for=60)
    ours.checkpoint([Write(lease=each, body=b"new", seq=1) for each in held])
    ours.ack([Write(lease=each, body=b"", seq=2) for each in held[:5]], keep_for=0)
    private_nats.kill()
    private_nats.start()

    assert _answered(ours) == QueueStats(ready=10, scheduled=0, leased=5)
    assert ours.ack([Write(lease=each, body=b"", seq=2) for each in held[5:]], keep_for=0) == frozenset()


def test_a_kill_of_the_server_brings_back_nothing_that_had_ended(
    private_nats: PrivateNats, make_broker: Make
) -> None:
    """The tasks and what replaced them fill several of its files, of 8 MiB each."""
    ours = make_broker(private_nats.url)
    ours.enqueue([Envelope(id=str(each), queue="orders", body=b"x" * 300_000) for each in range(60)])
    held = ours.acquire("orders", limit=30, wait=0, lease_for=60)
    ours.checkpoint([Write(lease=each, body=b"new", seq=1) for each in held])
    ours.ack([Write(lease=each, body=b"", seq=2) for each in held], keep_for=0)
    private_nats.kill()
    private_nats.start()

    assert _answered(ours) == QueueStats(ready=30, scheduled=0, leased=0)
    assert ours.get([each.envelope.id for each in held]) == {}


def test_what_a_killed_client_has_left_before_the_last_message_goes_with_it(
    url: str, make_broker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = make_broker(url)
    ours.enqueue([Envelope(id="one", queue="orders", body=b"")])

    async def killed(_session: Session, _seq: int, *, reply: str) -> None:
        """Nothing is erased any more."""

    with monkeypatch.context() as patched:
        patched.setattr(Session, "_erase", killed)
        (lease,) = ours.acquire("orders", limit=1, wait=0, lease_for=60)
        ours.checkpoint([Write(lease=lease, body=b"new", seq=1)])
    assert ours.get(["one"])["one"].body == b"new"
    assert ours.ack([Write(lease=lease, body=b"", seq=2)], keep_for=0) == frozenset()

    assert ours.get(["one"]) == {}
    assert NatsAdapter(url).dump(url) == {}


def test_settings_of_a_stream_that_lose_tasks_are_told(url: str, make_broker: Make) -> None:
    assert make_broker(url).warnings() == []
    settings = {
        "storage": "memory",
        "max_age": 1,
        "discard": "old",
        "max_msgs_per_subject": 1,
        "retention": "workqueue",
    }
    told = complaints("shop", settings)
    for name, sentence in zip(settings, told, strict=True):
        assert name in sentence


def _answered(ours: NatsBroker) -> QueueStats:
    deadline = time.monotonic() + 20
    while True:
        try:
            return ours.stats("orders")
        except BrokerUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.02)
