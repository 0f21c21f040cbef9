"""Metrics: what is shown is what happened; and showing it needs neither luck nor a single process."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from prometheus_client import Gauge
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from gotasks import App, ArgsMap, codec, metrics, reentrant, step
from gotasks.broker import Envelope, Lease
from gotasks.errors import BrokerUnavailable, ConfigurationError
from gotasks.events import BrokerDown, StepDone, StepRetried, TaskStarted
from gotasks.memory import MemoryBroker
from gotasks.metrics.totals import BUCKETS

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def scrape(server: Any) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as reply:
        return samples(reply.read().decode())


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, tuple(sorted(labels.items()))))


def series(found: Samples, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {labels: number for (each, labels), number in found.items() if each == name}


def until(true: Callable[[], object], seconds: float = 20) -> None:
    """Poll until it is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it hasn't come true in time"
        time.sleep(0.005)


class Shop:
    """An app, its metrics server, and handlers that do as they are told by their args map."""

    def __init__(self, broker: str | MemoryBroker = "memory://") -> None:
        self.app = App(broker)
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.app.register(
            "checkout", step(self.charge, name="charge"), reentrant(step(self.mail, name="mail"), max_times=3)
        )
        self.app.register("wait", step(self.hold, name="hold"))
        self.server = metrics.run_server(self.app, ":0")

    def charge(self, args: ArgsMap) -> None:
        if args.get("broke"):
            raise ValueError("no money")

    def mail(self, args: ArgsMap) -> None:
        if (
            args.get("flaky")
            and self.value("gotasks_retries_total", job_name="checkout", step="mail") is None
        ):
            raise ConnectionError("no route")

    def hold(self, args: ArgsMap) -> None:
        self.entered.set()
        assert self.go_on.wait(30)

    def scrape(self) -> Samples:
        return scrape(self.server)

    def value(self, name: str, **labels: str) -> float | None:
        return value(self.scrape(), name, queue_name="orders", **labels)


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.go_on.set()
    shop.server.close()
    shop.app.close()


# -- values -----------------------------------------------------------------------------------------


def test_counts_what_was_done(shop: Shop) -> None:
    orders = shop.app.queue("orders", max_limit=2)
    done = [orders.enqueue("checkout", {}) for _ in range(4)]
    done.append(orders.enqueue("checkout", {"flaky": True}))
    orders.enqueue("checkout", {"broke": True})

    with shop.app.worker("orders"):
        for task in done:
            task.wait(timeout=20)
        until(lambda: shop.value("gotasks_fatal_total", job_name="checkout", outcome="failed"))

    found = shop.scrape()
    job = {"queue_name": "orders", "job_name": "checkout"}
    assert value(found, "task_execution_stats_count", **job, status="success") == 5
    assert value(found, "task_execution_stats_count", **job, status="failed") == 1
    assert value(found, "task_execution_stats_bucket", **job, status="success", le="+Inf") == 5
    assert value(found, "gotasks_fatal_total", **job, outcome="failed") == 1
    seconds = "gotasks_step_duration_seconds_count"
    assert value(found, seconds, **job, step="charge", outcome="success") == 5
    assert value(found, seconds, **job, step="charge", outcome="failed") == 1
    assert value(found, seconds, **job, step="mail", outcome="success") == 5
    assert value(found, seconds, **job, step="mail", outcome="failed") == 1
    assert series(found, "gotasks_retries_total") == {
        (("job_name", "checkout"), ("queue_name", "orders"), ("step", "mail")): 1
    }
    assert value(found, "gotasks_checkpoints_total", **job) == 5
    assert value(found, "gotasks_ready_to_start_seconds_count", queue_name="orders") == 6
    assert value(found, "gotasks_in_flight", queue_name="orders") == 0
    assert not series(found, "gotasks_crashes_total")
    assert not series(found, "gotasks_lost_leases_total")


def test_histograms_are_cumulative_and_in_seconds(shop: Shop) -> None:
    times = [BUCKETS[0], BUCKETS[0] + 1e-9, 0.3, 7.0, BUCKETS[-1] + 1]
    for seconds in times:
        shop.app.events.emit(StepDone("1", "orders", "checkout", "mail", seconds, True))

    found = shop.scrape()

    labels = {"queue_name": "orders", "job_name": "checkout", "step": "mail", "outcome": "success"}
    for bound in BUCKETS:
        within = sum(seconds <= bound for seconds in times)
        assert value(found, "gotasks_step_duration_seconds_bucket", **labels, le=str(bound)) == within, bound
    assert value(found, "gotasks_step_duration_seconds_bucket", **labels, le="+Inf") == len(times)
    assert value(found, "gotasks_step_duration_seconds_sum", **labels) == pytest.approx(sum(times))


def test_a_crash_and_a_burial_without_a_run(shop: Shop) -> None:
    shop.app.queue("orders").enqueue("checkout", {})
    (lease,) = shop.app.dispatch.broker.acquire("orders", limit=1, wait=0, lease_for=0.01)  # and never again
    assert lease.deaths == 0

    with shop.app.worker("orders"):
        until(lambda: shop.value("gotasks_fatal_total", job_name="checkout", outcome="in_doubt"))

    found = shop.scrape()
    assert series(found, "gotasks_crashes_total") == {(("job_name", "checkout"), ("queue_name", "orders")): 1}
    assert not series(found, "task_execution_stats_count")  # a burial that takes no time is no execution


def test_queue_sizes_and_tasks_in_flight(shop: Shop) -> None:
    orders = shop.app.queue("orders", max_limit=1, monitor_interval=0.02)
    tasks = [orders.enqueue("wait", {}) for _ in range(3)]
    orders.enqueue("wait", {}, delay=3600)

    with shop.app.worker("orders"):
        assert shop.entered.wait(20)
        assert shop.value("gotasks_in_flight") == 1
        until(lambda: shop.value("task_queue_stats") == 2)
        found = shop.scrape()
        states = {s: value(found, "gotasks_task_queue", queue_name="orders", state=s) for s in STATES}
        assert states == {"ready": 2, "scheduled": 1, "leased": 1}
        shop.go_on.set()
        for task in tasks:
            task.wait(timeout=20)
        until(lambda: shop.value("gotasks_in_flight") == 0)


STATES = ("ready", "scheduled", "leased")


def test_a_worker_older_than_the_metrics_is_asked_too() -> None:
    app, entered, go_on = App("memory://"), threading.Event(), threading.Event()

    def hold(args: ArgsMap) -> None:
        entered.set()
        go_on.wait(30)

    app.register("wait", hold)
    app.queue("orders").enqueue("wait", {})

    with app.worker("orders"):
        assert entered.wait(20)
        with metrics.run_server(app, ":0") as server:
            assert value(scrape(server), "gotasks_in_flight", queue_name="orders") == 1
        go_on.set()


def test_a_checkpoint_that_ends_the_lease_ends_the_flight() -> None:
    shop = Shop("memory://?handoff=true")
    orders = shop.app.queue("orders")
    tasks = [orders.enqueue("checkout", {}) for _ in range(5)]

    with shop.server, shop.app.worker("orders"):
        for task in tasks:
            task.wait(timeout=20)
        until(lambda: shop.value("gotasks_in_flight") == 0)
        assert shop.value("gotasks_checkpoints_total", job_name="checkout") == 5


def test_a_lost_lease(shop: Shop) -> None:
    orders = shop.app.queue("orders")
    task = orders.enqueue("wait", {})

    with shop.app.worker("orders"):
        assert shop.entered.wait(20)
        assert list(shop.app.dispatch.cancel([task.id], keep_for=60)) == [task.id]
        shop.go_on.set()
        until(lambda: shop.value("gotasks_lost_leases_total", sure="true"))

    assert shop.value("gotasks_lost_leases_total", sure="true") == 1
    assert shop.value("task_execution_stats_count", job_name="wait", status="success") is None


def test_a_task_given_back(shop: Shop) -> None:
    def fail(args: ArgsMap) -> None:
        raise ConnectionError("no route")

    shop.app.register("later", reentrant(step(fail, name="fail"), sleepy_ms=3_600_000))
    shop.app.queue("orders").enqueue("later", {})

    with shop.app.worker("orders"):
        until(lambda: shop.value("gotasks_released_total", why="retry"))

    assert shop.value("gotasks_released_total", why="retry") == 1
    assert shop.value("gotasks_retries_total", job_name="later", step="fail") == 1


def test_a_stalled_loop() -> None:
    app, entered, go_on = App("memory://"), threading.Event(), threading.Event()

    async def block(args: ArgsMap) -> None:
        entered.set()
        go_on.wait(30)

    app.register("block", reentrant(block))
    app.queue("orders", lease=0.3).enqueue("block", {})
    with metrics.run_server(app, ":0") as server, app.worker("orders"):
        assert value(scrape(server), "gotasks_loop_stalled") == 0
        assert entered.wait(20)
        until(lambda: value(scrape(server), "gotasks_loop_stalled") == 1)
        go_on.set()
        until(lambda: value(scrape(server), "gotasks_loop_stalled") == 0)


class Faulty(MemoryBroker):
    """Can't be reached for the first three times that it is asked for tasks."""

    failures = 3

    def acquire(self, queue: str, **options: Any) -> list[Lease]:
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailable("no route to host")
        return super().acquire(queue, **options)


def test_failures_of_the_broker() -> None:
    shop = Shop(Faulty())
    task = shop.app.queue("orders").enqueue("checkout", {})

    with shop.server, shop.app.worker("orders"):
        task.wait(timeout=20)
        shop.app.events.emit(BrokerDown("reticulate 4711", "a plug-in's own word", 1))
        shop.app.events.emit(BrokerDown("reticulate-4712", "and another one", 1))

        assert series(shop.scrape(), "gotasks_broker_failures_total") == {
            (("what", "acquire"),): 3,
            (("what", "other"),): 2,
        }


# -- what comes from outside ------------------------------------------------------------------------


def test_job_names_from_outside_make_no_series(shop: Shop) -> None:
    orders = shop.app.queue("orders")
    for number in range(60):
        orders.enqueue(shop.app.external(f"strange-{number}"), {})
    shop.app.dispatch.enqueue([Envelope(id="garbage", queue="orders", body=b"\x00 not JSON")])
    good = orders.enqueue("checkout", {})

    with shop.app.worker("orders"):
        good.wait(timeout=20)
        until(lambda: shop.value("gotasks_fatal_total", job_name="unknown", outcome="unknown_job") == 60)
        until(lambda: shop.value("gotasks_fatal_total", job_name="unknown", outcome="unreadable") == 1)

    found = shop.scrape()
    assert len(series(found, "gotasks_fatal_total")) == 2
    assert {dict(labels).get("job_name") for _, labels in found} == {None, "unknown", "checkout"}


def test_a_label_may_hold_anything(shop: Shop) -> None:
    name = 'a "quoted" näme\\n'
    shop.app.register(name, shop.charge)
    shop.app.events.emit(StepRetried("1", "orders", name, "s", 1, 0.0, "boom"))

    assert shop.value("gotasks_retries_total", job_name=name, step="s") == 1


# -- threads, apps, imports -------------------------------------------------------------------------


def test_no_event_is_lost_between_threads(shop: Shop) -> None:
    each, threads = 5_000, 8
    start = threading.Barrier(threads)
    event = StepDone("1", "orders", "checkout", "mail", 0.25, True)

    def emit() -> None:
        start.wait()
        for number in range(each):
            shop.app.events.emit(event)
            shop.app.events.emit(TaskStarted("1", f"orders-{number % 1000}", "checkout", codec.now()))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        running = [threading.Thread(target=emit) for _ in range(threads)]
        for thread in running:
            thread.start()
        while any(thread.is_alive() for thread in running):
            shop.app.metrics.totals()  # a scrape in between
        for thread in running:
            thread.join()
    finally:
        sys.setswitchinterval(before)

    labels = {"job_name": "checkout", "step": "mail", "outcome": "success"}
    assert shop.value("gotasks_step_duration_seconds_count", **labels) == each * threads
    assert shop.value("gotasks_step_duration_seconds_sum", **labels) == each * threads * 0.25
    assert set(series(shop.scrape(), "gotasks_ready_to_start_seconds_count").values()) == {
        each * threads / 1000
    }


def test_each_app_has_its_own_registry() -> None:
    one, other = Shop(), Shop()
    with one.server, other.server:
        Gauge("my_own", "Of the user.", registry=one.app.metrics.registry).set(7)
        one.app.events.emit(StepRetried("1", "orders", "checkout", "mail", 1, 0.0, "boom"))

        assert one.value("gotasks_retries_total", job_name="checkout", step="mail") == 1
        assert value(one.scrape(), "my_own") == 7
        assert other.value("gotasks_retries_total", job_name="checkout", step="mail") is None
        assert value(other.scrape(), "my_own") is None


def test_importing_gotasks_does_not_import_prometheus_client() -> None:
    code = (
        "import sys, gotasks; app = gotasks.App('memory://'); app.metrics; "
        "assert 'prometheus_client' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- ways to show them ------------------------------------------------------------------------------


def test_wsgi(shop: Shop) -> None:
    shop.app.events.emit(StepRetried("1", "orders", "checkout", "mail", 1, 0.0, "boom"))
    seen: list[Any] = []

    def start_response(status: str, headers: Sequence[tuple[str, str]], exc_info: Any = None) -> None:
        seen.extend((status, dict(headers)))

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", "QUERY_STRING": ""}
    body = b"".join(metrics.wsgi_app(shop.app)(environ, start_response))

    assert seen[0].startswith("200 ")
    assert seen[1]["Content-Type"].startswith("text/plain")
    found = samples(body.decode())
    assert value(found, "gotasks_retries_total", queue_name="orders", job_name="checkout", step="mail") == 1


def test_asgi(shop: Shop) -> None:
    shop.app.events.emit(StepRetried("1", "orders", "checkout", "mail", 1, 0.0, "boom"))
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/metrics", "query_string": b"", "headers": []}
    asyncio.run(metrics.asgi_app(shop.app)(scope, receive, send))

    assert sent[0]["status"] == 200
    found = samples(b"".join(message.get("body", b"") for message in sent[1:]).decode())
    assert value(found, "gotasks_retries_total", queue_name="orders", job_name="checkout", step="mail") == 1


def test_open_metrics_is_valid_too(shop: Shop) -> None:
    for seconds in (0.1, 0.2):
        shop.app.events.emit(StepDone("1", "orders", "checkout", "mail", seconds, True))
    url = f"http://127.0.0.1:{shop.server.port}/"
    request = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
        assert reply.headers["Content-Type"].startswith("application/openmetrics-text")
        parsed = openmetrics.text_string_to_metric_families(reply.read().decode())  # type: ignore[no-untyped-call]
        families = {family.name: family for family in parsed}

    assert families["gotasks_step_duration_seconds"].type == "histogram"
    assert families["gotasks_retries"].type == "counter"


def test_a_server_is_for_this_machine_unless_told_otherwise(shop: Shop) -> None:
    # All of 127.0.0.0/8 is this machine, so another address of it tells which ones are listened on.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", shop.server.port), timeout=5)
    with metrics.run_server(shop.app, "0.0.0.0:0") as everywhere:
        socket.create_connection(("127.0.0.2", everywhere.port), timeout=5).close()
    with pytest.raises(urllib.error.URLError):
        scrape(everywhere)  # closed
    everywhere.close()  # as often as one likes


def test_a_client_that_says_nothing_does_not_hold_up_others(shop: Shop) -> None:
    with socket.create_connection(("127.0.0.1", shop.server.port), timeout=5):
        assert shop.scrape()


def test_ipv6(shop: Shop) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 on this machine: {error}")
    with (
        metrics.run_server(shop.app, "[::1]:0") as server,
        urllib.request.urlopen(f"http://[::1]:{server.port}/", timeout=10) as reply,
    ):
        assert b"gotasks_loop_stalled" in reply.read()


def test_a_port_in_use(shop: Shop) -> None:
    with pytest.raises(ConfigurationError, match=r"can't listen on .*the port is in use"):
        metrics.run_server(shop.app, f":{shop.server.port}")


@pytest.mark.parametrize(
    "address", ["", "2121", "localhost", ":", ":http", ":-1", ":65536", ":²", "::1", "::1:2121"]
)
def test_what_is_no_address(shop: Shop, address: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"not {address!r}")):
        metrics.run_server(shop.app, address)


@pytest.mark.parametrize(
    "address, message",
    [("host.invalid:0", "no host 'host.invalid'"), ("192.0.2.1:0", "no such address")],
)
def test_an_address_of_nobody(shop: Shop, address: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        metrics.run_server(shop.app, address)
