"""RabbitMQ beside a record store: the store has the tasks; a pointer that is lost or doubled costs none of them."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotasks import App, ArgsMap
from gotasks.broker import Broker, BrokerURL, Capability, Lease, State
from gotasks.conformance.kit.tight import Tight
from gotasks.discovery import open_broker
from gotasks.errors import BrokerUnavailable, InvalidURL, TaskCancelled, UnknownScheme
from gotasks.task import Outcome, Status
from gotasks_rabbitmq.recorded import RecordedBroker
from tests.backends.contract import envelope, eventually, ids_of, let_end, put, take, take_one, write
from tests.backends.engine import PATIENCE, QUEUE, Engine, Gate
from tests.backends.recorded import forget_pointers, nobody_looks, pointers, publish, recorded_url, told
from tests.cli_process import Cli, until
from tests.redis_server import PrivateRedis


@pytest.fixture(params=["redis", "sqlite"])
def url(request: pytest.FixtureRequest, rabbitmq_url: str) -> str:
    """An empty place on RabbitMQ, and one in a store."""
    store: str = request.getfixturevalue(f"{request.param}_url")
    return recorded_url(rabbitmq_url, store)


@pytest.fixture
def broker(url: str) -> Iterator[Broker]:
    broker = open_broker(url)
    yield broker
    broker.close()


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = Engine(url)
    yield engine
    engine.close()


# -- the URL ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "store, says",
    [
        ("memory://?without=RECORDS", "needs RECORDS, and"),
        ("memory://?without=BROWSE,ATOMIC_MOVE", "needs BROWSE, ATOMIC_MOVE, and"),
        ("memory://?handoff=true", "HANDOFF"),
        ("amqp://me:secret@host", "needs IDEMPOTENT, RECORDS, BROWSE, ATOMIC_MOVE, TIMED_LEASE, and"),
        ("amqp://me:secret@host?records=memory%3A%2F%2F", "no records= of its own"),
        ("memory:", "records= in the amqp:// URL: a broker URL starts with a scheme"),
        ("", "records= in the amqp:// URL: a broker URL starts with a scheme"),
        ("memory://?without=everything", "takes some of"),
        ("redis://me:secret@host:port", "redis:// URL can't be parsed"),
    ],
)
def test_what_cant_be_a_record_store_is_refused(store: str, says: str) -> None:
    with pytest.raises(InvalidURL, match=says) as refused:
        open_broker(recorded_url("amqp://host", store))
    assert "secret" not in str(refused.value)


def test_a_record_store_needs_an_installed_broker() -> None:
    with pytest.raises(UnknownScheme, match="reddis"):
        open_broker(recorded_url("amqp://host", "reddis://me:secret@host"))


def test_policies_are_of_no_interest_beside_a_record_store() -> None:
    with pytest.raises(InvalidURL, match="no policy"):
        open_broker(recorded_url("amqp://host?management=http%3A%2F%2Fhost%3A15672", "memory://"))


def test_it_claims_what_its_store_claims_and_a_batch_that_both_take() -> None:
    store = open_broker("memory://?without=PRIORITY")
    broker = open_broker(recorded_url("amqp://host", "memory://?without=PRIORITY"))
    assert isinstance(broker, RecordedBroker)
    assert broker.capabilities == store.capabilities
    assert Capability.PRIORITY not in broker.capabilities
    assert (broker.limits.max_batch, store.limits.max_batch) == (200, 1000)
    assert store.limits.recovery < broker.limits.recovery <= store.limits.recovery + 1


SECRETS = ("pw-of-rabbit", "pw-of-redis", "token-of-redis")


def test_neither_password_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    url = recorded_url(
        f"amqp://me:{SECRETS[0]}@127.0.0.1:1/shop?connect_timeout=1",
        f"redis://me:{SECRETS[1]}@127.0.0.1:1/0?connect_timeout=1",
    )
    app = App(url)
    broker = app.dispatch.broker
    shown = [str(app), repr(app), app.broker, str(broker), repr(broker), str(BrokerURL(url))]
    with pytest.raises(BrokerUnavailable) as failed:
        broker.stats(QUEUE)
    shown += [str(failed.value), repr(failed.value)]
    with pytest.raises(BrokerUnavailable) as failed:
        broker.warnings()
    shown += [str(failed.value), repr(failed.value), *caplog.messages]
    app.close()
    wrong = f"{url}%26token%3D{SECRETS[2]}%26no-such=1"
    with pytest.raises(InvalidURL) as refused:
        open_broker(wrong)
    shown += [str(refused.value), repr(refused.value), str(BrokerURL(wrong))]
    assert not [text for text in shown for secret in SECRETS if secret in text]


# -- what a store gives -----------------------------------------------------------------------------------


def pay(args: ArgsMap) -> ArgsMap:
    return {**args, "paid": True}


def test_a_program_has_all_that_needs_records(engine: Engine) -> None:
    gate = Gate()
    gated = engine.app.register("gated", gate.handler)
    checkout = engine.app.register("checkout", pay)
    queue = engine.app.queue(QUEUE, max_limit=2)
    with engine.app.worker():
        done = queue.enqueue(checkout, {"order": 1})
        assert done.wait(timeout=PATIENCE) == {"order": 1, "paid": True}
        assert done.status() is Status.DONE

        began = time.monotonic()
        late = queue.enqueue(checkout, {}, delay=0.4)
        assert late.status() is Status.SCHEDULED
        late.wait(timeout=PATIENCE)
        assert time.monotonic() - began >= 0.4

        first = queue.enqueue(gated, {}, unique="one")
        eventually(lambda: gate.inside == 1, what="a handler that runs")
        assert queue.enqueue(gated, {}, unique="one").id == first.id
        assert first.status() is Status.RUNNING

        never = queue.enqueue(checkout, {}, delay=60)
        assert never.cancel()
        with pytest.raises(TaskCancelled):
            never.wait(timeout=PATIENCE)
        gate.open.set()
        first.wait(timeout=PATIENCE)


def test_a_checkpoint_keeps_its_lease(broker: Broker) -> None:
    put(broker)
    lease = take_one(broker, wait=5)
    assert broker.checkpoint([write(lease, b"1", seq=1)]) == frozenset()
    assert broker.checkpoint([write(lease, b"2", seq=2)]) == frozenset()
    assert take(broker) == []
    assert broker.get([lease.envelope.id])[lease.envelope.id].body == b"2"
    assert broker.ack([write(lease, b"3", seq=3)], keep_for=60) == frozenset()
    assert broker.get([lease.envelope.id])[lease.envelope.id].state is State.DONE


def test_the_store_says_who_is_next(broker: Broker, url: str) -> None:
    low, high = envelope("low"), envelope("high", priority=9)
    broker.enqueue([low])
    broker.enqueue([high])
    assert [take_one(broker, wait=5).envelope.id for _ in range(2)] == ["high", "low"]
    before = put(broker, 2)
    forget_pointers(url)
    after = put(broker, 2)
    assert ids_of(take(broker, 4, wait=5)) == before + after


# -- pointers ---------------------------------------------------------------------------------------------


def test_a_pointer_wakes_who_waits(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_looks(monkeypatch)

    def woken_by(call: Callable[[], object]) -> Lease:
        assert take(broker) == []  # who has looked once looks no more
        found: list[Lease] = []
        waiting = threading.Thread(target=lambda: found.extend(take(broker, wait=2 * PATIENCE)))
        waiting.start()
        call()
        waiting.join(PATIENCE)
        (lease,) = found
        return lease

    first = woken_by(lambda: put(broker))
    woken_by(lambda: broker.release([write(first)]))
    put(broker, queue="other")
    second = take_one(broker, queue="other", wait=5)
    woken_by(lambda: broker.release([write(second, queue=QUEUE)]))


def test_what_has_no_pointers_is_worked_off_without_a_pause(
    broker: Broker, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody_looks(monkeypatch)
    sent = put(broker, 5)
    forget_pointers(url)
    began = time.monotonic()
    assert [take_one(broker, wait=PATIENCE).envelope.id for _ in sent] == sent
    assert time.monotonic() - began < PATIENCE


def test_a_task_whose_pointer_is_lost_is_run(engine: Engine, url: str) -> None:
    job = engine.app.register("job", engine.keep)
    queue = engine.app.queue(QUEUE)
    before = [queue.enqueue(job) for _ in range(3)]
    forget_pointers(url)
    with engine.app.worker():
        for task in before:
            task.wait(timeout=PATIENCE)
        forget_pointers(url)  # from under a worker that waits there
        queue.enqueue(job).wait(timeout=PATIENCE)


def test_an_idempotent_repeat_gives_a_task_a_pointer_again(
    broker: Broker, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody_looks(monkeypatch)
    take(broker)
    sent = envelope()
    broker.enqueue([sent])
    forget_pointers(url)
    assert broker.enqueue([sent]) == {sent.id: sent.id}
    assert pointers(url) == 1
    assert take_one(broker, wait=PATIENCE).envelope.id == sent.id


def test_a_task_whose_pointer_is_doubled_is_run_once(engine: Engine, url: str) -> None:
    calls: list[str] = []

    def call(args: ArgsMap) -> None:
        calls.append(args["name"])

    job = engine.app.register("job", call)
    queue = engine.app.queue(QUEUE, max_limit=3)
    with engine.app.worker():
        first = queue.enqueue(job, {"name": "first"})
        publish(url, *[(first.id, b"")] * 5)
        first.wait(timeout=PATIENCE)
        publish(url, (first.id, b""), ("never-there", b""), (None, b""))
        queue.enqueue(job, {"name": "second"}).wait(timeout=PATIENCE)
        eventually(lambda: pointers(url) == 0, what="an end of the pointers")
    engine.close()
    assert calls == ["first", "second"]
    assert pointers(url) == 0  # none was merely held


def test_a_pointer_that_is_left_over_makes_no_delay_shorter(broker: Broker, url: str) -> None:
    (task,) = put(broker)
    forget_pointers(url)
    lease = take_one(broker, wait=5)
    broker.release([write(lease, delay=2.0)])
    released = time.monotonic()
    publish(url, (task, b""))
    again = take_one(broker, wait=PATIENCE)
    assert (again.envelope.id, time.monotonic() - released >= 1.9) == (task, True)


def test_pointers_to_the_fatal_queue_dont_pile_up(engine: Engine, url: str) -> None:
    def fail(args: ArgsMap) -> None:
        raise ValueError("no")

    job = engine.app.register("job", fail)
    queue = engine.app.queue(QUEUE)
    with engine.app.worker():
        tasks = [queue.enqueue(job) for _ in range(3)]
        eventually(
            lambda: len(engine.app.fatal.list(9)) == 3, within=PATIENCE, what="three in the fatal queue"
        )
        engine.app.fatal.drop(tasks[0].id)
        engine.app.fatal.retry(tasks[1].id)
        eventually(lambda: len(engine.app.fatal.list(9)) == 2, within=PATIENCE, what="it failed again")
        # A pointer is dropped after the record was written.
        eventually(
            lambda: pointers(url, "fatal") <= 2, within=PATIENCE, what="the end of the others' pointers"
        )


def test_a_purge_takes_the_pointers_along(broker: Broker, url: str) -> None:
    put(broker, 3)
    put(broker, delay=60)
    assert pointers(url) == 3
    assert broker.purge(QUEUE) == 4
    assert pointers(url) == 0
    assert take(broker) == []


# -- workers that die -------------------------------------------------------------------------------------

ERRANDS = """
import pathlib
import time

from gotasks import App, reentrant

app = App("memory://")


def work(args):
    gate = pathlib.Path(args["gate"])
    with gate.with_suffix(".started").open("a") as started:
        started.write("x")
    while not gate.exists():
        time.sleep(0.005)
    return {"worked": True}


app.register("errand", reentrant(work))
app.register("payment", work)
app.queue("orders", lease=1)
"""


def test_what_a_killed_worker_held_comes_again_after_its_lease(url: str, tmp_path: Path) -> None:
    cli = Cli(tmp_path, GOTASKS_BROKER_URL=url, GOTASKS_APP="errands")
    cli.module("errands", ERRANDS)
    gate = tmp_path / "gate"
    started = gate.with_suffix(".started")
    try:
        victim = cli.worker()
        tasks = [
            cli.run("enqueue", job, f"gate={json.dumps(str(gate))}", "-q", "orders").stdout.strip()
            for job in ("errand", "payment")
        ]
        until(lambda: started.exists() and started.read_text() == "xx", "two steps aren't begun")
        os.kill(victim.process.pid, signal.SIGKILL)
        gate.touch()
        cli.worker()
        until(lambda: cli.state(tasks[0]) == "done", "the errand isn't done")
        cli.until_fatal(tasks[1])  # it isn't begun a second time
        assert started.read_text() == "xxx"
        assert (pointers(url), pointers(url, "fatal")) == (0, 1)
    finally:
        cli.close()


def test_a_lease_that_is_over_is_offered_again(broker: Broker) -> None:
    put(broker)
    lease = take(broker, lease_for=0.5, wait=5)
    let_end(lease)
    assert take_one(broker, wait=broker.limits.recovery).deaths == 1


# -- messages of others -----------------------------------------------------------------------------------


def test_a_message_that_is_no_pointer_ends_in_the_fatal_queue(
    engine: Engine, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    job = engine.app.register("job", engine.keep)
    queue = engine.app.queue(QUEUE)
    publish(url, ("from-elsewhere", b"who am I?"), (None, b"\x00\xff"))
    with engine.app.worker():
        queue.enqueue(job).wait(timeout=PATIENCE)
        eventually(lambda: len(engine.app.fatal.list(9)) == 2, within=PATIENCE, what="two in the fatal queue")
    assert {each.failure.outcome for each in engine.app.fatal.list(9)} == {Outcome.UNREADABLE}
    assert "from-elsewhere" in [each.id for each in engine.app.fatal.list(9)]
    assert told(caplog, "didn't come through the record store and are tasks there now") > 0
    engine.close()
    assert pointers(url) == 0


def test_what_was_enqueued_without_records_is_run_with_them(engine: Engine, rabbitmq_url: str) -> None:
    job = engine.app.register("job", pay)
    engine.app.queue(QUEUE)
    before = App(rabbitmq_url)
    before.register("job", pay)
    task = before.queue(QUEUE).enqueue("job", {"order": 7})
    before.close()
    with engine.app.worker():
        engine.app.queue(QUEUE).enqueue(job, {"order": 8}).wait(timeout=PATIENCE)
        eventually(lambda: engine.broker.stats(QUEUE).leased == 0, what="an idle worker")
    record = engine.broker.get([task.id])[task.id]
    assert record.state is State.DONE
    assert json.loads(record.body)["args_map"] == {"order": 7, "paid": True}


def test_its_deaths_come_along(broker: Broker, url: str, rabbitmq_url: str) -> None:
    publish(url, ("died", b"body"))
    victim = open_broker(rabbitmq_url)
    take_one(victim, wait=5)
    victim.close()
    lease = take_one(broker, wait=5)
    assert (lease.envelope.id, lease.envelope.body, lease.deaths) == ("died", b"body", 1)


def test_a_message_with_an_id_that_is_known_runs_nothing_twice(
    broker: Broker, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    (task,) = put(broker)
    lease = take_one(broker, wait=5)
    publish(url, (task, b"an older state"))
    assert take(broker, wait=0.5) == []
    assert broker.ack([write(lease, b"done")], keep_for=60) == frozenset()
    assert broker.get([task])[task].body == b"done"
    assert told(caplog, "thrown away") == 1
    broker.close()
    assert pointers(url) == 0


def test_a_message_that_the_store_doesnt_take_stays_where_it_is(
    rabbitmq_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    publish(rabbitmq_url, ("large", b"x" * 200_001))
    broker = RecordedBroker(open_broker(rabbitmq_url), Tight())
    (task,) = put(broker)
    assert take_one(broker, wait=5, lease_for=5).envelope.id == task
    eventually(lambda: take(broker, lease_for=5) == [] and told(caplog, "can't become a task") == 1)
    broker.close()
    eventually(lambda: pointers(rabbitmq_url) == 1, what="it's there again")


def test_a_message_waits_for_a_store_that_is_down(
    rabbitmq_url: str, private_redis: Callable[..., PrivateRedis]
) -> None:
    store = private_redis()
    broker = open_broker(recorded_url(rabbitmq_url, f"{store.url}?timeout=2&connect_timeout=1"))
    take(broker)
    publish(rabbitmq_url, ("stranger", b"body"))
    store.kill()
    with pytest.raises(BrokerUnavailable):
        take(broker, wait=5)
    store.start()
    assert take_one(broker, wait=PATIENCE).envelope.body == b"body"
    assert pointers(rabbitmq_url) == 0
    broker.close()
