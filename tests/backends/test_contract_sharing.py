"""The broker contract: several threads, several processes, and calls that a broker doesn't have."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable

import pytest

from gotasks import App
from gotasks.broker import Broker, Capability, Envelope, State, Write
from gotasks.errors import InvalidURL, PayloadTooLarge, Rejected, Unsupported
from tests.backends.contract import LONG, QUEUE, envelope, put, stats, take, take_one, write


def test_eight_threads_of_mixed_calls_lose_and_double_nothing(broker: Broker) -> None:
    each, threads = 60, 8
    acked: list[str] = []
    enqueued: list[str] = []
    errors: list[BaseException] = []
    start = threading.Barrier(threads)

    def main(number: int) -> None:
        try:
            rng = random.Random(number)
            start.wait(10)
            for _ in range(each):
                enqueued.extend(put(broker))
            while len(acked) < threads * each:
                for lease in take(broker, rng.randint(1, 5), wait=0.05):
                    work(rng, lease.envelope.id, [write(lease, seq=seq) for seq in (1, 2)])
        except BaseException as error:
            errors.append(error)

    def work(rng: random.Random, task_id: str, writes: list[Write]) -> None:
        chance = rng.random()
        if chance < 0.3:
            assert broker.extend([writes[0].lease], lease_for=LONG) == frozenset()
        if chance < 0.6:
            assert broker.checkpoint(writes[:1]) == frozenset()
        if chance < 0.2 or chance > 0.9:
            assert broker.release(writes[1:]) == frozenset()
        else:
            assert broker.ack(writes[1:], keep_for=0) == frozenset()
            acked.append(task_id)

    workers = [threading.Thread(target=main, args=(number,), daemon=True) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(40)

    assert errors == []
    assert Counter(acked) == Counter(enqueued)
    assert len(set(acked)) == threads * each
    assert broker.stats(QUEUE) == stats()


def test_threads_that_take_over_the_same_tasks_never_share_one(broker: Broker, short: float) -> None:
    put(broker, 20)
    take(broker, 20, lease_for=short)
    taken: list[str] = []

    def main() -> None:
        while len(taken) < 20:
            taken.extend(lease.envelope.id for lease in take(broker, 3, wait=0.5))

    workers = [threading.Thread(target=main, daemon=True) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert len(taken) == len(set(taken)) == 20


FORK = """
    import os, sys
    from gotasks.broker import Envelope, Write
    from gotasks.discovery import open_broker

    broker = open_broker(sys.argv[1])
    broker.enqueue([Envelope(id=f"t{n}", queue="q", body=b"parent") for n in range(4)])
    lease, second = broker.acquire("q", limit=2, wait=0, lease_for=60)

    child = os.fork()
    if child == 0:
        write = Write(lease=lease, body=b"child", seq=1)
        for lost in (
            broker.extend([lease], lease_for=1),
            broker.checkpoint([write]),
            broker.release([write]),
            broker.ack([write], keep_for=0),
        ):
            assert lost == {lease.receipt}, lost
        broker.enqueue([Envelope(id="child", queue="mine", body=b"x")])  # it connects by itself
        (own,) = broker.acquire("mine", limit=1, wait=0, lease_for=60)
        assert own.receipt not in (lease.receipt, second.receipt)
        assert broker.checkpoint([Write(lease=own, body=b"y", seq=1)]) == frozenset()
        assert broker.ack([Write(lease=own, body=b"y", seq=2)], keep_for=0) == frozenset()
        broker.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    # The parent's connection and leases are as they were.
    assert broker.checkpoint([Write(lease=lease, body=b"one", seq=1)]) == frozenset()
    assert broker.ack([Write(lease=lease, body=b"two", seq=2)], keep_for=60) == frozenset()
    assert broker.get(["t0"])["t0"].body == b"two"
    assert broker.release([Write(lease=second, body=b"back", seq=1)]) == frozenset()
    assert [each.envelope.id for each in broker.acquire("q", limit=9, wait=0, lease_for=60)] == ["t1", "t2", "t3"]
    broker.close()
    print("done")
"""


def test_a_forked_child_is_unconnected_and_refuses_its_parents_leases(broker_url: str) -> None:
    words = [sys.executable, "-c", textwrap.dedent(FORK), broker_url]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr


# -- what a broker doesn't have -----------------------------------------------------------------


LESSER = "memory://?without=DELAY,PRIORITY,UNIQUE,RECORDS,BROWSE,CANCEL,ATOMIC_MOVE"


def unclaimed(app: App) -> dict[Capability, Callable[[], object]]:
    """For each capability a call that needs it."""
    send = app.dispatch.enqueue
    return {
        Capability.DELAY: lambda: send([envelope(), envelope(delay=1)]),
        Capability.PRIORITY: lambda: send([envelope(), envelope(priority=1)]),
        Capability.UNIQUE: lambda: send([envelope(), envelope(unique="key")]),
        Capability.RECORDS: lambda: app.dispatch.get(["a"]),
        Capability.BROWSE: lambda: app.dispatch.browse(QUEUE, state=State.READY, limit=1),
        Capability.CANCEL: lambda: app.dispatch.cancel(["a"], keep_for=0),
    }


@pytest.mark.parametrize("lesser", [False, True])
def test_what_isnt_claimed_is_refused_by_name_and_nothing_is_done(broker_url: str, lesser: bool) -> None:
    app = App(LESSER if lesser else broker_url)
    app.dispatch.enqueue([envelope("a")])
    for capability, call in unclaimed(app).items():
        if capability in app.capabilities:
            continue
        with pytest.raises(Unsupported, match=str(capability.name)):
            call()
    assert app.stats(QUEUE) == stats(ready=1)
    app.close()


def test_an_optional_method_that_isnt_claimed_raises_by_itself_too(broker: Broker) -> None:
    with pytest.raises(Unsupported):
        broker.enqueue_on(object(), [envelope()])
    if Capability.CANCEL not in broker.capabilities:
        with pytest.raises(Unsupported):
            broker.cancel(["a"], keep_for=0)


def test_the_lesser_memory_broker_raises_by_itself_too() -> None:
    broker = App(LESSER).dispatch.broker
    calls: list[Callable[[], object]] = [
        lambda: broker.get(["a"]),
        lambda: broker.browse(QUEUE, state=State.READY, limit=1),
        lambda: broker.cancel(["a"], keep_for=0),
        lambda: broker.acquire(QUEUE, limit=1, wait=0, lease_for=LONG, ids=["a"]),
    ]
    for call in calls:
        with pytest.raises(Unsupported):
            call()


@pytest.mark.parametrize("name", ["IDEMPOTENT", "TIMED_LEASE", "SHARED", "delay", "NONSENSE"])
def test_the_memory_broker_cant_do_without_what_it_is_built_on(name: str) -> None:
    with pytest.raises(InvalidURL, match=name):
        _ = App(f"memory://?without={name}").dispatch


def test_a_body_beyond_the_brokers_limit_is_rejected_by_id_and_the_others_may_be_sent(
    broker_url: str,
) -> None:
    app = App(broker_url)
    most = app.dispatch.limits.max_payload
    if most is None:
        pytest.skip("this broker has no limit of its own")
    large = Envelope(id="large", queue=QUEUE, body=b"x" * (most + 1))
    with pytest.raises(PayloadTooLarge) as caught:
        app.dispatch.enqueue([envelope("small"), large])
    assert caught.value.ids == {"large"}
    assert isinstance(caught.value, Rejected)

    app.dispatch.enqueue([envelope("held")])
    lease = take_one(app.dispatch.broker)
    with pytest.raises(PayloadTooLarge) as caught:
        app.dispatch.broker.release([write(lease, b"x" * (most + 1))])
    assert caught.value.ids == {"held"}
    assert app.stats(QUEUE) == stats(leased=1)
    app.close()


def test_a_delay_beyond_the_brokers_limit_is_rejected(broker_url: str) -> None:
    app = App(broker_url)
    most = app.dispatch.limits.max_delay
    if most is None:
        pytest.skip("this broker has no limit of its own")
    with pytest.raises(Rejected) as caught:
        app.dispatch.enqueue([envelope("late", delay=most * 1.01)])
    assert caught.value.ids == {"late"}
    assert app.stats(QUEUE) == stats()
    assert app.dispatch.enqueue([envelope("just", delay=most)]) == {}
    assert app.stats(QUEUE) == stats(scheduled=1)
    app.close()
