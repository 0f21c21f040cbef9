"""`management=`: a queue whose policies would lose tasks is refused, whatever AMQP says of it."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

import pika
import pytest

from gotasks import App, ArgsMap
from gotasks.broker import BrokerURL, Envelope, Lease, Write
from gotasks.conformance.kit.proxy import Proxy
from gotasks.conformance.server_process import free_port
from gotasks.errors import BrokerUnavailable, ConfigurationError
from gotasks.events import BrokerDown
from gotasks_rabbitmq import RabbitBroker
from gotasks_rabbitmq.names import Names
from gotasks_rabbitmq.policies import Policy, hazard
from tests.backends.contract import eventually
from tests.rabbit_console import Console, tls
from tests.rabbit_server import PrivateRabbit, channel, namespaced

QUORUM = {"x-queue-type": "quorum"}

#: Keys of which each alone loses tasks, and a value; and what is said of it.
HAZARDS = {
    "max-length": (1, "max-length=1: of more tasks than that the oldest are thrown away"),
    "max-length-bytes": (9, "max-length-bytes=9: of more bytes than that the oldest tasks are thrown away"),
    "message-ttl": (5, "message-ttl=5: a task that waits for more milliseconds than that is thrown away"),
    "expires": (60000, "expires=60000: the queue is deleted with its tasks when no worker has asked for one"),
    "delivery-limit": (7, "delivery-limit=7: a task whose workers die more often than that is thrown away"),
}


@pytest.fixture(scope="module")
def server(rabbit_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRabbit]:
    """A server with its management plugin, for all tests here."""
    directory = tmp_path_factory.mktemp("rabbitmq")
    server = PrivateRabbit(directory, tls(directory), management=True)
    yield server.start()
    server.close()


@pytest.fixture
def console(server: PrivateRabbit) -> Console:
    return Console(server.management_url)


@pytest.fixture
def plain(server: PrivateRabbit) -> Iterator[str]:
    """A namespace of the server, without `management=`."""
    with namespaced(server.url) as url:
        yield url


@pytest.fixture
def checked(plain: str, server: PrivateRabbit) -> str:
    """The same with it."""
    return managed(plain, server.management_url)


@pytest.fixture
def broker(checked: str) -> Iterator[RabbitBroker]:
    broker = opened(checked)
    yield broker
    broker.close()


def opened(url: str) -> RabbitBroker:
    return RabbitBroker.from_url(BrokerURL(url))


def managed(url: str, management: str) -> str:
    return f"{url}&management={quote(management, safe='')}"


def name(url: str, queue: str = "orders") -> str:
    return Names(BrokerURL(url).params["namespace"]).tasks(queue)


def put(broker: RabbitBroker, task_id: str = "a", *, queue: str = "orders") -> None:
    broker.enqueue([Envelope(id=task_id, queue=queue, body=b"body")])


def take(broker: RabbitBroker, *, queue: str = "orders", wait: float = 0.0) -> list[Lease]:
    return broker.acquire(queue, limit=1, wait=wait, lease_for=60)


def exists(url: str, queue: str = "orders") -> bool:
    with channel(url) as other:
        try:
            other.queue_declare(name(url, queue), passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return False
        return True


def shown_by(call: Callable[[], object]) -> str:
    """All that a person sees of an error."""
    with pytest.raises((BrokerUnavailable, ConfigurationError)) as caught:
        call()
    return "".join(traceback.format_exception(caught.value)) + repr(caught.value)


# -- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["policy", "operator policy"])
@pytest.mark.parametrize("key", HAZARDS)
def test_a_policy_that_loses_tasks_is_refused_and_nothing_is_stored(
    broker: RabbitBroker, checked: str, console: Console, kind: str, key: str
) -> None:
    value, says = HAZARDS[key]
    pattern = f"^{name(checked)}$"
    with console.policy(kind, pattern, {key: value}, name="limits"):
        for call in (lambda: put(broker), lambda: take(broker)):
            with pytest.raises(ConfigurationError) as caught:
                call()
            sentence = str(caught.value)
            assert f"{kind} 'limits' would lose tasks of queue {name(checked)!r} ({says}" in sentence
            assert f"Take {key} out of it, change its pattern {pattern!r} or give the queue" in sentence
        assert not exists(checked)
    put(broker, "b")  # once it's gone the same broker works
    assert [lease.envelope.id for lease in take(broker, wait=5)] == ["b"]


def test_the_sentence_says_what_is_really_done(broker: RabbitBroker, checked: str, console: Console) -> None:
    definition = {
        "max-length": 3,
        "message-ttl": 9,
        "overflow": "reject-publish",
        "dead-letter-exchange": "d",
    }
    with console.policy("policy", name(checked), definition), pytest.raises(ConfigurationError) as caught:
        put(broker)
    says = str(caught.value)
    assert (
        "max-length=3: what comes beyond that is refused, and the task of a refused checkpoint is gone"
        in says
    )
    assert "message-ttl=9: a task that waits for more milliseconds than that is moved to exchange 'd'" in says
    assert "Take max-length and message-ttl out of it" in says


def test_a_task_isnt_moved_to_a_queue_that_may_lose_it(
    broker: RabbitBroker, checked: str, console: Console
) -> None:
    put(broker)
    (lease,) = take(broker, wait=5)
    moved = Write(lease=lease, body=b"moved", seq=1, queue="fatal")
    with console.policy("policy", f"^{name(checked, 'fatal')}$", {"max-length": 1}):
        with pytest.raises(ConfigurationError, match="would lose tasks"):
            broker.release([moved])
        assert not exists(checked, "fatal")
        assert broker.extend([lease], lease_for=60) == frozenset()  # it is still held
    assert broker.release([moved]) == frozenset()
    assert [each.envelope.body for each in take(broker, queue="fatal", wait=5)] == [b"moved"]


def test_what_is_there_can_be_counted_and_purged_all_the_same(
    plain: str, checked: str, console: Console
) -> None:
    before = opened(plain)
    put(before)
    before.close()
    broker = opened(checked)
    with console.policy("policy", name(checked), {"max-length": 10}):
        assert broker.stats("orders").ready == 1
        assert broker.purge("orders") == 1
        with pytest.raises(ConfigurationError, match="would lose tasks"):
            take(broker)
    broker.close()


def test_a_worker_takes_nothing_until_the_policy_is_gone(plain: str, checked: str, console: Console) -> None:
    done = threading.Event()
    down: list[str] = []

    def job(_: ArgsMap) -> None:
        done.set()

    producer = App(plain, task_ttl=None)
    producer.external("job")
    producer.queue("orders").enqueue("job", {})
    app = App(checked, task_ttl=None)
    app.register("job", job)
    app.queue("orders", lease=5)
    app.events.listen(lambda event: down.append(event.error) if isinstance(event, BrokerDown) else None)
    with console.policy("policy", name(checked), {"delivery-limit": 3}):
        worker = app.worker("orders")
        worker.start()
        eventually(lambda: any("delivery-limit=3" in each for each in down), what="the sentence", within=30)
        assert not done.is_set()
    assert done.wait(30)
    worker.stop()
    app.close()
    producer.close()


# -- what isn't -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "definition",
    [
        {"ha-mode": "all"},
        {"queue-mode": "lazy"},
        {"max-in-memory-length": 1, "overflow": "reject-publish"},
        {"dead-letter-exchange": "", "dead-letter-routing-key": "x", "dead-letter-strategy": "at-least-once"},
        {"queue-leader-locator": "client-local"},
        {"ha-mode": "all", "max-length": 1},  # which isn't applied to a quorum queue
    ],
)
def test_a_policy_that_loses_none_passes(
    broker: RabbitBroker, checked: str, console: Console, definition: dict[str, Any]
) -> None:
    with console.policy("policy", f"^{name(checked)}$", definition):
        put(broker)
        assert len(take(broker, wait=5)) == 1


@pytest.mark.parametrize(
    "pattern, more",
    [
        ("^{}:wake$", {}),
        ("^elsewhere", {}),
        ("^{}$", {"apply-to": "exchanges"}),
    ],
)
def test_a_policy_for_others_passes(
    broker: RabbitBroker, checked: str, console: Console, pattern: str, more: dict[str, Any]
) -> None:
    with console.policy("policy", pattern.format(name(checked)), {"max-length": 1}, **more):
        put(broker)
        assert len(take(broker, wait=5)) == 1


def test_a_policy_with_a_higher_priority_is_the_one_that_counts(
    broker: RabbitBroker, checked: str, console: Console
) -> None:
    def harmless(priority: int, pattern: str = name(checked)) -> AbstractContextManager[str]:
        return console.policy("policy", pattern, {"overflow": "drop-head"}, priority=priority)

    with console.policy("policy", name(checked), {"max-length": 1}, priority=3):
        with (
            harmless(4, "[[:alpha:]]"),
            pytest.raises(ConfigurationError),
        ):  # whether it matches can't be seen
            put(broker)
        with harmless(4):
            put(broker)


def test_without_management_nothing_is_checked(plain: str, console: Console) -> None:
    broker = opened(plain)
    with console.policy("policy", name(plain), {"max-length": 5}):
        put(broker)
        assert broker.warnings() == []
    broker.close()


def test_the_server_agrees(server: PrivateRabbit, console: Console, plain: str) -> None:
    """What the server itself applies to a queue is compared with what is thought here."""
    loses: dict[str, Any] = {"max-length": 5}
    cases: dict[str, list[tuple[str, dict[str, Any], dict[str, Any]]]] = {
        "none": [],
        "one": [("^{}$", loses, {})],
        "operator": [("^{}$", loses, {})],
        "anywhere": [("{}", loses, {})],
        "alternatives": [("^(x|{})$", loses, {})],
        "case": [("(?i)^{}$", loses, {})],
        "longer": [("^{}:", loses, {})],
        "all": [("^{}$", loses, {"apply-to": "all"})],
        "exchanges": [("^{}$", loses, {"apply-to": "exchanges"})],
        "mirrored": [("^{}$", {**loses, "ha-mode": "all"}, {})],
        "mirrored-so": [("^{}$", {**loses, "ha-mode": "exactly", "ha-params": 2}, {})],
        "lazy": [("^{}$", {**loses, "queue-mode": "lazy"}, {})],
        "located": [("^{}$", {**loses, "queue-master-locator": "min-masters"}, {})],
        "aged": [("^{}$", {**loses, "max-age": "1D"}, {})],
        "initial": [("^{}$", {**loses, "initial-cluster-size": 1}, {})],
        "under-mirrored": [("^{}$", {"ha-mode": "all"}, {"priority": 9}), ("^{}$", loses, {})],
        "under-lazy": [("^{}$", {"queue-mode": "lazy"}, {"priority": 9}), ("^{}$", loses, {})],
        "under-stream": [("^{}$", {"max-age": "1D"}, {"priority": 9}), ("^{}$", loses, {})],
        "under-harmless": [("^{}$", {"overflow": "drop-head"}, {"priority": 9}), ("^{}$", loses, {})],
        "over-harmless": [("^{}$", {"overflow": "drop-head"}, {"priority": -1}), ("^{}$", loses, {})],
        "locator": [("^{}$", {"queue-leader-locator": "client-local"}, {"priority": 9}), ("^{}$", loses, {})],
    }
    kinds = {"operator": "operator policy"}
    names = {case: f"{BrokerURL(plain).params['namespace']}:{case}" for case in cases}
    paths = [
        console.set(kinds.get(case, "policy"), pattern.format(names[case]), definition, **more)
        for case, policies in cases.items()
        for pattern, definition, more in policies
    ]
    try:
        with channel(plain) as other:
            for each in names.values():
                other.queue_declare(each, durable=True, arguments=QUORUM)
            # HTTP tells of it only seconds later.
            found = server.ctl(
                "eval",
                "[element(4, amqqueue:get_name(Q)) || Q <- rabbit_amqqueue:list(), "
                'rabbit_policy:get(<<"max-length">>, Q) =/= undefined].',
            )
            for each in names.values():
                other.queue_delete(each)
        listed = {
            kind: [
                Policy(**{key.replace("-", "_"): value for key, value in each.items() if key != "vhost"})
                for each in console.call("GET", f"{path}/%2F")
            ]
            for kind, path in {"policy": "policies", "operator policy": "operator-policies"}.items()
        }
    finally:
        for path in paths:
            console.clear(path)
    applied = {case for case, each in names.items() if f'<<"{each}">>' in found}
    assert {"one", "operator", "alternatives", "case", "under-mirrored", "under-stream"} <= applied
    assert applied.isdisjoint({"none", "longer", "exchanges", "mirrored", "lazy", "aged", "under-harmless"})
    refused = {
        case
        for case, each in names.items()
        if any(hazard(kind, policies, each) for kind, policies in listed.items())
    }
    assert refused == applied


# -- when it is asked -------------------------------------------------------------------------------------


def test_a_policy_that_comes_later_is_seen_by_the_next_connection(
    broker: RabbitBroker, checked: str, console: Console
) -> None:
    put(broker)
    with console.policy("policy", name(checked), {"max-length": 10}):
        put(broker, "b")  # it isn't asked again for a queue that is in use
        later = opened(checked)
        with pytest.raises(ConfigurationError, match="max-length=10"):
            put(later)
        later.close()


def test_it_is_asked_again_after_a_reconnect(server: PrivateRabbit, checked: str, console: Console) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        broker = opened(proxy.through(checked))
        put(broker)
        with console.policy("policy", name(checked), {"max-length": 10}):
            proxy.cut()
            found: list[str] = []

            def refused() -> bool:
                try:
                    put(broker, "b")
                except BrokerUnavailable:
                    pass  # of the cut itself
                except ConfigurationError as error:
                    found.append(str(error))
                return bool(found)

            eventually(refused, what="the refusal", within=30)
            assert "max-length=10" in found[0]
        broker.close()


def test_it_is_asked_once_for_a_queue_and_a_connection(server: PrivateRabbit, plain: str) -> None:
    port = urlsplit(server.management_url).port
    assert port is not None
    with Proxy("127.0.0.1", port) as proxy:
        broker = opened(managed(plain, proxy.through(server.management_url)))
        put(broker, "a")  # the connection that stores
        take(broker, wait=5)  # the one that holds
        assert proxy.accepted == 2
        with proxy.refusing():
            put(broker, "b")
            assert [lease.envelope.id for lease in take(broker, wait=5)] == ["b"]
            with pytest.raises(BrokerUnavailable):
                put(broker, queue="other")
        put(broker, queue="other")
        assert proxy.accepted == 3
        broker.close()


def test_a_plugin_that_hangs_delays_no_heartbeat_and_no_other_queue(
    server: PrivateRabbit, plain: str
) -> None:
    port = urlsplit(server.management_url).port
    assert port is not None
    with Proxy("127.0.0.1", port) as proxy:
        url = f"{plain}&heartbeat=1&timeout=12&connect_timeout=5"
        broker = opened(managed(url, proxy.through(server.management_url)))
        put(broker)
        (lease,) = take(broker, wait=5)
        errors: list[str] = []
        with proxy.holding("replies"):

            def other() -> None:
                errors.append(shown_by(lambda: take(broker, queue="other")))

            thread = threading.Thread(target=other)
            thread.start()
            while thread.is_alive():  # 5 s, in which the server would end a connection without heartbeats
                assert broker.extend([lease], lease_for=60) == frozenset()
                thread.join(0.1)
        assert "can't be asked for policies (timed out)" in errors[0]
        assert broker.checkpoint([Write(lease=lease, body=b"new", seq=1)]) == frozenset()
        broker.close()


# -- when it can't be asked -------------------------------------------------------------------------------

SECRET = "Sq7xZ"


def test_a_user_needs_the_tag_management(server: PrivateRabbit, plain: str, console: Console) -> None:
    awkward = f"{SECRET} @:/?#%&+=é"
    base = server.management_url.removeprefix("http://guest:guest@")
    users = {
        "good": (console.user(awkward, "management"), awkward, None),
        "wrong": (console.user(awkward, "management"), SECRET, "Login failed"),
        "untagged": (console.user(awkward, ""), awkward, "Not management user"),
        "foreign": (console.user(awkward, "management", permitted=False), awkward, "virtual host"),
    }
    for user, password, reason in users.values():
        broker = opened(managed(plain, f"http://{user}:{quote(password, safe='')}@{base}"))
        if reason is None:
            assert broker.warnings() == []
            put(broker)
        else:
            for call in (partial(put, broker), broker.warnings):
                shown = shown_by(call)
                assert SECRET not in shown
                assert "ConfigurationError" in shown
                assert f"http://{user}:***@{base} refuses its user or password" in shown
                assert reason in shown
                assert "give management= a user with the tag management" in shown
        assert SECRET not in f"{broker._address} {broker._address!r} {broker._address.management!r}"
        broker.close()


def test_a_plugin_that_isnt_there_is_told_of(server: PrivateRabbit, plain: str) -> None:
    port = free_port()
    broker = opened(managed(plain, f"http://me:{SECRET}@127.0.0.1:{port}"))
    for call in (lambda: put(broker), lambda: take(broker), broker.warnings):
        shown = shown_by(call)
        assert SECRET not in shown
        assert "BrokerUnavailable" in shown
        assert f"http://me:***@127.0.0.1:{port} can't be asked for policies" in shown
        assert "refused" in shown
    assert not exists(plain)
    broker.close()


@pytest.mark.parametrize(
    "where, says",
    [
        ("http://guest:guest@127.0.0.1:{port}/elsewhere", "doesn't answer /elsewhere/api/policies/%2F"),
        ("https://guest:{secret}@127.0.0.1:{port}", "can't be asked for policies"),
        ("http://guest:{secret}@exa..mple:1", "can't be asked for policies"),
    ],
)
def test_a_url_that_leads_elsewhere_is_told_of(
    server: PrivateRabbit, plain: str, where: str, says: str
) -> None:
    port = urlsplit(server.management_url).port
    broker = opened(managed(plain, where.format(secret=SECRET, port=port)))
    shown = shown_by(lambda: put(broker))
    assert says in shown
    assert SECRET not in shown
    broker.close()


def test_tls(server: PrivateRabbit, plain: str, console: Console) -> None:
    if "listeners.ssl.1" not in server.settings:
        pytest.skip("no openssl program on this machine to make a certificate")
    secure = f"https://127.0.0.1:{server.settings['management.ssl.port']}"
    broker = opened(managed(plain, secure))
    assert "certificate verify failed" in shown_by(lambda: put(broker))
    broker.close()
    amqps = f"amqps://guest:guest@{server.settings['listeners.ssl.1']}/?{urlsplit(plain).query}"
    # What is trusted for amqps:// is trusted for https:// too.
    trusting = f"{amqps}&ssl_ca_certs={quote(server.settings['ssl_options.cacertfile'])}"
    broker = opened(managed(trusting, secure))
    put(broker)
    with (
        console.policy("policy", name(plain, "other"), {"max-length": 1}),
        pytest.raises(ConfigurationError, match="would lose tasks"),
    ):
        put(broker, queue="other")
    broker.close()
