"""What may befall a worker on RabbitMQ: it costs no task, and the log says what happened."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gotasks import App, ArgsMap, reentrant, step
from gotasks.broker import BrokerURL
from gotasks.conformance.kit.proxy import Proxy
from gotasks.events import BrokerDown
from gotasks.logs import LogListener
from gotasks_rabbitmq.names import Names
from tests.backends.contract import eventually
from tests.backends.engine import QUEUE, Gate, Steps, Watch
from tests.rabbit_server import PrivateRabbit, channel, consumer_timeout, namespaced


@contextmanager
def opened(url: str, **params: str) -> Iterator[App]:
    """An app whose worker writes everything into the log."""
    app = App("&".join([url, *(f"{name}={value}" for name, value in params.items())]), task_ttl=None)
    app.events.listen(LogListener())
    yield app
    app.close()


class Said(logging.Handler):
    """The log of gotasks, every line of it."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)

    def count(self, pattern: str) -> int:
        """How many lines have this in them."""
        return sum(re.search(pattern, record.getMessage()) is not None for record in self._records[:])

    def eventually(self, pattern: str, *, within: float = 20.0) -> None:
        eventually(lambda: self.count(pattern) > 0, what=f"a line of log with {pattern!r}", within=within)

    @property
    def worried(self) -> list[str]:
        """All that was said louder than INFO."""
        return [record.getMessage() for record in self._records if record.levelno > logging.INFO]


@pytest.fixture
def said() -> Iterator[Said]:
    said, logger = Said(), logging.getLogger("gotasks")
    level = logger.level
    logger.addHandler(said)
    logger.setLevel(logging.DEBUG)
    yield said
    logger.setLevel(level)
    logger.removeHandler(said)


@pytest.fixture
def private_url(private_rabbit: PrivateRabbit) -> Iterator[str]:
    """A namespace of a server on which a test may raise alarms, and change what it is set to."""
    with namespaced(private_rabbit.url) as url:
        yield url


def name(url: str) -> str:
    """The name of the queue on the server."""
    return Names(BrokerURL(url).params["namespace"]).tasks(QUEUE)


# -- handlers that take long --------------------------------------------------------------------------------


def test_a_handler_takes_longer_than_three_heartbeats(rabbitmq_url: str, said: Said) -> None:
    calls: list[int] = []

    def handler(_: ArgsMap) -> None:
        calls.append(1)
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            sum(range(20_000))  # so that the I/O thread has to fight for its turn

    with opened(rabbitmq_url, heartbeat="1") as app:
        app.register("job", handler)
        task = app.queue(QUEUE, lease=1).enqueue("job")
        with app.worker():
            said.eventually(rf"task {task.id} of job 'job': done after [3-9]\.")
    assert calls == [1]
    assert said.worried == []


@pytest.mark.timeout(120)
def test_a_handler_that_outlasts_the_consumer_timeout_is_given_up_in_time(
    private_url: str, private_rabbit: PrivateRabbit, said: Said
) -> None:
    """The server says how long it waits, the URL repeats it, and the worker settles the task before that."""
    gate = Gate()
    with opened(private_url, consumer_timeout="4") as app, consumer_timeout(private_rabbit, 4):
        app.register("job", step(gate.handler, name="step"))
        task = app.queue(QUEUE, lease=1, max_limit=1).enqueue("job")
        with app.worker():
            said.eventually(rf"task {task.id} of job 'job': to the fatal queue, timed_out at step 'step': ")
            gate.open.set()
            eventually(lambda: app.stats("fatal").ready == 1, what="the task in the fatal queue")
        (failed,) = app.fatal.list()
    assert (failed.id, failed.failure.in_doubt, failed.failure.outcome.value) == (task.id, True, "timed_out")
    assert said.count("RabbitMQ took") == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["reentrant", "plain"])
def test_a_task_is_taken_back_where_the_url_doesnt_tell_of_a_short_consumer_timeout(
    private_url: str, private_rabbit: PrivateRabbit, said: Said, kind: str
) -> None:
    """A step that may run twice is run again; another one is in doubt. What the old run returns is discarded."""
    gate, first = threading.Event(), threading.Event()

    def handler(_: ArgsMap) -> None:
        if not first.is_set():
            first.set()
            gate.wait(60)

    with opened(private_url) as app, consumer_timeout(private_rabbit, 3):
        app.register("job", step(reentrant(handler) if kind == "reentrant" else handler, name="step"))
        task = app.queue(QUEUE, lease=1, max_limit=2).enqueue("job")
        with app.worker():
            said.eventually(rf"RabbitMQ took task {task.id} of '{QUEUE}' back: .*timed out")
            said.eventually(rf"task {task.id} of job 'job': its worker went away \(1 times in this step\)")
            if kind == "reentrant":
                said.eventually(rf"task {task.id} of job 'job': done after ")
            else:
                said.eventually(rf"task {task.id} of job 'job': to the fatal queue, in_doubt at step 'step'")
            gate.set()
            said.eventually(rf"task {task.id} of job 'job': the lease is lost .* is discarded")
        assert app.stats(QUEUE).ready == 0
        assert [each.id for each in app.fatal.list()] == ([] if kind == "reentrant" else [task.id])
    assert said.count(f"task {task.id} .*: done after ") == (kind == "reentrant")


# -- alarms -------------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_checkpoint_during_an_alarm_waits_for_its_end(
    private_url: str, private_rabbit: PrivateRabbit, said: Said, kind: str
) -> None:
    gate, after = Gate(), Gate()
    after.open.set()
    with opened(private_url, timeout="2") as app:
        app.register("job", step(gate.handler, name="first"), step(after.handler, name="second"))
        task = app.queue(QUEUE, lease=1).enqueue("job")
        watch = Watch(app)
        with app.worker():
            eventually(lambda: gate.inside == 1, what="inside")
            with private_rabbit.alarm(kind):
                gate.open.set()
                said.eventually(f"RabbitMQ takes no writes: low on {kind}; they wait until it does again")
                said.eventually("the broker doesn't answer, .*takes no writes")
                watch.until(
                    lambda: f"checkpoint {QUEUE}" in [each.what for each in watch.all(BrokerDown)],
                    "a checkpoint that isn't carried out",
                )
                assert after.calls == 0
            said.eventually("RabbitMQ takes writes again")
            said.eventually(r"the broker is back after \d+ attempts")
            said.eventually(f"task {task.id} of job 'job': done after ")
    assert (gate.calls, after.calls) == (1, 1)


# -- the network --------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_twenty_cuts_in_five_seconds_lose_no_task(
    rabbitmq_url: str, said: Said, figures: Callable[[str], None]
) -> None:
    ((host, port),) = BrokerURL(rabbitmq_url).hosts
    done: set[int] = set()

    def first(args: ArgsMap) -> ArgsMap:
        return {**args, "seen": 1}

    def second(args: ArgsMap) -> None:
        time.sleep(0.05)  # so that there is work at each of the cuts
        done.add(args["n"])

    with (
        Proxy(host, port or 5672) as proxy,
        opened(rabbitmq_url) as direct,
        opened(proxy.through(rabbitmq_url)) as app,
    ):
        direct.external("job")
        direct.queue(QUEUE).enqueue_many("job", [{"n": number} for number in range(400)])
        app.register("job", reentrant(first), reentrant(second))
        app.queue(QUEUE, lease=5, max_limit=4, max_crashes=100)
        cut = 0
        with app.worker():
            began = time.monotonic()
            for number in range(20):
                time.sleep(max(0.0, began + 0.25 * (number + 1) - time.monotonic()))
                cut += proxy.cut() > 0
            eventually(lambda: len(done) == 400, what="all tasks", within=60)
            said.eventually(r"the broker is back after \d+ attempts")
        assert direct.stats(QUEUE).ready == direct.stats("fatal").ready == 0
    figures(
        f"{cut} of 20 cuts met a connection; {said.count('the broker is back')} times back, "
        f"{said.count('its worker went away')} tasks redelivered"
    )
    assert cut > 10
    assert said.count("the broker doesn't answer, and is asked again") > 0


# -- hands in the queues ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["delete", "purge"])
def test_a_queue_is_deleted_or_purged_while_a_task_of_it_is_held(
    rabbitmq_url: str, said: Said, what: str
) -> None:
    """What waits there is gone, as was wished; what is held goes on, and its hop finds a queue."""
    gate, after = Gate(), Gate()
    after.open.set()
    with opened(rabbitmq_url) as app:
        app.register("job", step(gate.handler, name="first"), step(after.handler, name="second"))
        held = app.queue(QUEUE, max_limit=1).enqueue("job")
        with app.worker():
            eventually(lambda: gate.inside == 1, what="inside")
            app.queue(QUEUE).enqueue_many("job", [{}] * 3)
            with channel(rabbitmq_url) as other:
                getattr(other, f"queue_{what}")(name(rabbitmq_url))
            gate.open.set()
            said.eventually(f"task {held.id} of job 'job': done after ")
            new = app.queue(QUEUE).enqueue("job")
            said.eventually(f"task {new.id} of job 'job': done after ")
    assert (gate.calls, after.calls) == (2, 2)
    gone = (
        f"RabbitMQ has no queue '{name(rabbitmq_url)}' any more: what waited there is gone. It is made anew"
    )
    assert said.count(re.escape(gone)) == (what == "delete")
    assert said.worried == [gone] * (what == "delete")


@pytest.mark.timeout(120)
def test_a_hop_that_no_queue_takes_is_put_where_it_belongs_as_soon_as_that_may_be_made(
    private_url: str, private_rabbit: PrivateRabbit, said: Said
) -> None:
    """Its queue is deleted, and our user may not make it at first: only we have the task then."""
    gate, after = Gate(), Gate()
    after.open.set()
    with opened(private_url) as app:
        app.register("job", step(gate.handler, name="first"), step(after.handler, name="second"))
        task = app.queue(QUEUE, max_limit=1).enqueue("job")
        with app.worker():
            eventually(lambda: gate.inside == 1, what="inside")
            with channel(private_url) as other:
                other.queue_delete(name(private_url))
            private_rabbit.ctl("set_permissions", "guest", "^$", ".*", ".*")
            try:
                gate.open.set()
                said.eventually(f"the broker doesn't answer, .*checkpoint {QUEUE}, .*refused")
            finally:
                private_rabbit.ctl("set_permissions", "guest", ".*", ".*", ".*")
            said.eventually(f"task {task.id} of job 'job': done after ", within=40)
    assert (gate.calls, after.calls) == (1, 1)


@pytest.mark.parametrize("kind", ["reentrant", "plain"])
def test_a_task_that_was_dead_lettered_fifty_times_has_died_fifty_times(
    rabbitmq_url: str, said: Said, kind: str
) -> None:
    """A copy that a dead letter exchange brings back isn't flagged as redelivered. A hop takes its past away."""
    loop = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": name(rabbitmq_url),
    }
    steps = Steps()
    first = reentrant(steps.one) if kind == "reentrant" else steps.one
    with opened(rabbitmq_url) as app, channel(rabbitmq_url) as other:
        other.queue_declare(name(rabbitmq_url), durable=True, arguments=loop)
        app.register("job", step(first, name="first"), step(steps.two, name="second"))
        task = app.queue(QUEUE, max_crashes=51).enqueue("job")
        rounds = 0
        while rounds < 50:
            method, _, _ = other.basic_get(name(rabbitmq_url))
            if method is not None:
                assert not method.redelivered
                other.basic_nack(method.delivery_tag, requeue=False)
                rounds += 1
        with app.worker():
            said.eventually(rf"task {task.id} of job 'job': its worker went away \(50 times in this step\)")
            if kind == "reentrant":
                said.eventually(f"task {task.id} of job 'job': done after ")
            else:
                said.eventually(f"task {task.id} of job 'job': to the fatal queue, in_doubt at step 'first'")
    assert steps.calls == (["one", "two"] if kind == "reentrant" else [])


# -- order --------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_a_chain_of_fifty_steps_with_a_thousand_tasks_behind_it_is_finished(
    rabbitmq_url: str, said: Said, figures: Callable[[str], None]
) -> None:
    """Each step goes to the end of the queue: those who wait there go first, once, not before each step."""
    order: list[str] = []

    def nth(number: int) -> Any:
        return step(lambda args: order.append(f"{args['name']}.{number}"), name=f"step-{number}")

    with opened(rabbitmq_url) as app:
        app.register("long", *[nth(number) for number in range(50)])
        app.register("short", nth(0))
        queue = app.queue(QUEUE, max_limit=10)
        task = queue.enqueue("long", {"name": "long"})
        queue.enqueue_many("short", [{"name": f"short-{number}"} for number in range(1000)])
        began = time.monotonic()
        with app.worker():
            said.eventually(f"task {task.id} of job 'long': done after ", within=240)
            eventually(lambda: len(order) == 1050, what="the end", within=60)
        took = time.monotonic() - began
    steps = [each for each in order if each.startswith("long")]
    assert steps == [f"long.{number}" for number in range(50)]
    assert len(set(order)) == 1050
    place = order.index("long.1")
    figures(f"1050 steps in {took:.1f} s; the second of the chain was number {place}")
    assert place > 900  # behind those that waited
