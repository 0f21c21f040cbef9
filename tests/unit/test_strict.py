"""StrictBroker: each rule of the contract, broken on purpose, and what it says."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence

import msgspec
import pytest

from gotasks import App, ArgsMap
from gotasks.broker import Broker, BrokerURL, Capability, Envelope, Lease, Limits, State, Write
from gotasks.conformance.kit.transactional import Begun, Transactional
from gotasks.conformance.strict import Misuse, StrictBroker
from gotasks.discovery import open_broker
from gotasks.errors import BrokerUnavailable, InvalidURL, Rejected
from gotasks.memory import MemoryBroker
from gotasks.run import Run
from tests.backends.contract import LONG, QUEUE, envelope, put, stats, take_one, write

ALL = "memory://"
LESSER = "memory://?without=DELAY,PRIORITY,UNIQUE,RECORDS,BROWSE,CANCEL"


def strict(url: str = ALL, **limits: object) -> StrictBroker:
    """A strict broker on an empty one, with these limits."""
    inner = open_broker(url)
    inner.limits = msgspec.structs.replace(MemoryBroker.limits, **limits)
    return StrictBroker(inner)


def held(broker: Broker) -> Lease:
    """The lease of a task that was just put there."""
    put(broker)
    return take_one(broker)


def acquire(broker: Broker, **changes: object) -> object:
    options = {"limit": 1, "wait": 0.0, "lease_for": LONG, **changes}
    return broker.acquire(QUEUE, **options)  # type: ignore[arg-type]


def misuse(call: Callable[[], object], match: str, broker: StrictBroker) -> None:
    """The call is refused with a sentence, and remembered."""
    with pytest.raises(Misuse, match=match) as caught:
        call()
    assert broker.misuses[-1] is caught.value


# -- one call alone -----------------------------------------------------------------------------------


CALLS: dict[str, tuple[Callable[[Broker], object], str]] = {
    "no id": (lambda it: it.enqueue([msgspec.structs.replace(envelope(), id="")]), "a task id is"),
    "a malformed id": (lambda it: it.get(["a b"]), "a task id is"),
    "no queue": (lambda it: it.stats(""), "queue"),
    "a malformed queue": (lambda it: it.purge("a/b"), "queue"),
    "a queue to interrupt": (lambda it: it.interrupt("a/b"), "queue"),
    "several queues": (
        lambda it: it.enqueue([envelope(), envelope(queue="other")]),
        "several queues: orders, other",
    ),
    "a large batch": (
        lambda it: it.enqueue([envelope() for _ in range(4)]),
        "4 items; limits.max_batch is 3",
    ),
    "a negative delay": (lambda it: it.enqueue([envelope(delay=-1)]), "a delay of -1 s"),
    "a long delay": (lambda it: it.enqueue([envelope(delay=61)]), "a delay of 61 s; limits.max_delay is 60"),
    "a priority": (lambda it: it.enqueue([envelope(priority=10)]), "priority 10"),
    "a large body": (lambda it: it.enqueue([envelope(None, bytes(32_769))]), "32769 bytes; .* less 32768"),
    "limit 0": (lambda it: acquire(it, limit=0), "limit=0"),
    "a negative wait": (lambda it: acquire(it, wait=-0.1), "wait=-0.1"),
    "no lease": (lambda it: acquire(it, lease_for=0.0), "lease_for=0"),
    "a long lease": (lambda it: acquire(it, lease_for=101.0), "limits.max_lease is 100"),
    "extend by nothing": (lambda it: it.extend([held(it)], lease_for=0.0), "lease_for=0"),
    "a negative keep_for": (lambda it: it.ack([write(held(it))], keep_for=-1), "keep_for=-1"),
    "browse nothing": (lambda it: it.browse(QUEUE, state=State.READY, limit=0), "limit=0"),
    "browse after a malformed id": (
        lambda it: it.browse(QUEUE, state=State.READY, limit=1, after="a b"),
        "task id",
    ),
    "a checkpoint with a delay": (lambda it: it.checkpoint([write(held(it), delay=1)]), "release only"),
    "an ack with a queue": (lambda it: it.ack([write(held(it), queue="x")], keep_for=0), "release only"),
    "a release into nowhere": (lambda it: it.release([write(held(it), queue="a/b")]), "queue"),
    "a release too late": (lambda it: it.release([write(held(it), delay=61)]), "a delay of 61 s"),
    "a large checkpoint": (
        lambda it: it.checkpoint([write(held(it), bytes(32_769))]),
        "checkpoint of 32769 bytes",
    ),
    "a large release": (lambda it: it.release([write(held(it), bytes(65_537))]), "release of 65537 bytes"),
    "a large ack": (lambda it: it.ack([write(held(it), bytes(65_537))], keep_for=0), "ack of 65537 bytes"),
    "seq 0": (lambda it: it.ack([write(held(it), seq=0)], keep_for=0), "seq is 1 at least"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_no_broker_takes(name: str) -> None:
    broker = strict(max_batch=3, max_delay=60, max_lease=100, max_payload=65_536)
    call, match = CALLS[name]
    misuse(lambda: call(broker), match, broker)


async def _on_a_loop(broker: Broker, *envelopes: Envelope, connection: object = None) -> Mapping[str, str]:
    return await broker.aenqueue_on(connection, envelopes)


def test_what_is_enqueued_in_a_transaction_obeys_the_same_rules() -> None:
    inner = Transactional.from_url(BrokerURL("memory://?batch=2"))
    broker, begun = StrictBroker(inner), Begun(inner)
    for envelopes, match in (
        ([envelope(), envelope(), envelope()], "limits.max_batch is 2"),
        ([envelope(), envelope(queue="other")], "several queues"),
        ([envelope("a b")], "id"),
        ([envelope(delay=101)], "a delay of 101"),
        ([envelope(body=b"x" * 200_000)], "less 32768"),
    ):
        misuse(lambda these=envelopes: broker.enqueue_on(begun, these), match, broker)  # type: ignore[misc]
        misuse(lambda these=envelopes: asyncio.run(_on_a_loop(broker, *these)), match, broker)  # type: ignore[misc]
    assert broker.enqueue_on(begun, [envelope()]) == {}
    assert asyncio.run(_on_a_loop(broker, envelope(), connection=begun)) == {}
    begun.commit()
    assert inner.stats(QUEUE) == stats(ready=2)


UNCLAIMED: dict[str, Callable[[Broker], object]] = {
    "DELAY": lambda it: it.enqueue([envelope(delay=1)]),
    "DELAY of a release": lambda it: it.release([write(held(it), delay=1)]),
    "PRIORITY": lambda it: it.enqueue([envelope(priority=1)]),
    "UNIQUE": lambda it: it.enqueue([envelope(unique="key")]),
    "RECORDS": lambda it: it.get(["a"]),
    "RECORDS of an ack": lambda it: it.ack([write(held(it))], keep_for=1),
    "BROWSE": lambda it: it.browse(QUEUE, state=State.READY, limit=1),
    "BROWSE of an acquire": lambda it: acquire(it, ids=["a"]),
    "CANCEL": lambda it: it.cancel(["a"], keep_for=0),
    "TRANSACTIONAL": lambda it: it.enqueue_on(object(), [envelope()]),
    "TRANSACTIONAL on a loop": lambda it: asyncio.run(_on_a_loop(it, envelope())),
}


@pytest.mark.parametrize("name", UNCLAIMED)
def test_what_isnt_claimed_isnt_asked_for(name: str) -> None:
    broker = strict(LESSER)
    misuse(lambda: UNCLAIMED[name](broker), f"doesn't claim {name.partition(' ')[0]}", broker)


# -- leases -------------------------------------------------------------------------------------------


SETTLING: dict[str, Callable[[Broker, Sequence[Write]], object]] = {
    "ack": lambda broker, writes: broker.ack(writes, keep_for=0),
    "release": lambda broker, writes: broker.release(writes),
}
WRITES = {"checkpoint": lambda broker, writes: broker.checkpoint(writes), **SETTLING}


@pytest.mark.parametrize("first", SETTLING)
@pytest.mark.parametrize("then", WRITES)
def test_a_write_after_the_lease_was_settled(first: str, then: str) -> None:
    broker = strict()
    lease = held(broker)
    SETTLING[first](broker, [write(lease)])
    misuse(lambda: WRITES[then](broker, [write(lease, seq=2)]), "after the lease had been settled", broker)
    misuse(lambda: SETTLING[first](broker, [write(lease)]), "after the lease had been settled", broker)


def test_a_write_after_a_checkpoint_that_ends_the_lease() -> None:
    broker = strict("memory://?handoff=true")
    lease = held(broker)
    broker.checkpoint([write(lease)])
    misuse(lambda: broker.ack([write(lease, seq=2)], keep_for=0), "after the lease had been settled", broker)


def test_a_write_after_one_was_lost() -> None:
    broker = strict()
    lease = held(broker)
    broker.inner.release([write(lease)])
    assert broker.checkpoint([write(lease)]) == {lease.receipt}
    misuse(lambda: broker.release([write(lease, seq=2)]), "after the lease had been settled", broker)


def test_seq_rises_and_a_repeat_is_the_same() -> None:
    broker = strict()
    lease = held(broker)
    broker.checkpoint([write(lease, seq=2)])
    misuse(lambda: broker.checkpoint([write(lease, seq=1)]), "after seq 2: it has to rise", broker)
    misuse(lambda: broker.checkpoint([write(lease, b"other", seq=2)]), "differs from the write", broker)
    misuse(lambda: broker.release([write(lease, seq=2)]), "differs from the write", broker)
    misuse(lambda: broker.checkpoint([write(lease, seq=2)]), "needs a higher one", broker)
    assert broker.release([write(lease, seq=3)]) == frozenset()


class Unsure(MemoryBroker):
    """Carries writes out, and says that it doesn't know; or refuses them."""

    error: Exception | None = BrokerUnavailable("the reply was lost")

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().checkpoint(writes)
        if self.error is not None:
            raise self.error
        return lost

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        if self.error is not None:
            raise self.error
        return lost


def test_after_an_unknown_outcome_the_same_may_be_sent_again_or_a_new_write() -> None:
    inner = Unsure()
    broker = StrictBroker(inner)
    lease = held(broker)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            broker.checkpoint([write(lease)])
    misuse(lambda: broker.checkpoint([write(lease, b"other")]), "differs from the write", broker)
    with pytest.raises(BrokerUnavailable):
        broker.release([write(lease, seq=2)])
    inner.error = None
    assert broker.release([write(lease, seq=2)]) == {lease.receipt}  # took effect, or was taken over
    misuse(lambda: broker.release([write(lease, seq=2)]), "after the lease had been settled", broker)


def test_a_refused_write_is_certain_for_those_it_names_only() -> None:
    inner = Unsure()
    broker = StrictBroker(inner)
    put(broker, 2)
    one, two = broker.acquire(QUEUE, limit=2, wait=0, lease_for=LONG)
    inner.error = Rejected("no room", ids=[one.envelope.id])
    with pytest.raises(Rejected):
        broker.checkpoint([write(one), write(two)])
    inner.error = None
    misuse(lambda: broker.checkpoint([write(one)]), "needs a higher one", broker)
    assert broker.checkpoint([write(one, seq=2), write(two)]) == frozenset()


def test_a_write_while_another_one_of_the_lease_is_on_its_way() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(MemoryBroker):
        def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
            begun.set()
            go_on.wait(10)
            return super().checkpoint(writes)

    broker = StrictBroker(Slow())
    lease = held(broker)
    thread = threading.Thread(target=lambda: broker.checkpoint([write(lease)]))
    thread.start()
    assert begun.wait(10)
    misuse(lambda: broker.ack([write(lease, seq=2)], keep_for=0), "on its way", broker)
    assert broker.extend([lease], lease_for=LONG) == frozenset()  # the heart may
    go_on.set()
    thread.join()
    assert broker.ack([write(lease, seq=2)], keep_for=0) == frozenset()


def test_two_writes_of_a_lease_in_one_call() -> None:
    broker = strict()
    lease = held(broker)
    misuse(lambda: broker.checkpoint([write(lease), write(lease, seq=2)]), "on its way", broker)


def test_a_lease_that_was_never_given_out() -> None:
    broker = strict()
    foreign = held(broker.inner)
    for call in WRITES.values():
        misuse(lambda call=call: call(broker, [write(foreign)]), "never gave out", broker)  # type: ignore[misc]
    misuse(lambda: broker.extend([foreign], lease_for=LONG), "never gave out", broker)
    mine = held(broker)
    renamed = msgspec.structs.replace(mine, envelope=envelope("other"))
    misuse(lambda: broker.ack([write(renamed)], keep_for=0), "never gave out", broker)


def test_an_extend_after_the_answer() -> None:
    broker = strict()
    lease = held(broker)
    broker.ack([write(lease)], keep_for=0)
    misuse(lambda: broker.extend([lease], lease_for=LONG), "settled and answered", broker)


def test_the_heart_may_extend_once_what_another_thread_has_settled_a_moment_ago() -> None:
    broker = strict()
    lease = held(broker)
    thread = threading.Thread(target=lambda: broker.ack([write(lease)], keep_for=0))
    thread.start()
    thread.join()
    broker.extend([lease], lease_for=LONG)
    misuse(lambda: broker.extend([lease], lease_for=LONG), "settled and answered", broker)


def test_a_lease_that_is_held_for_too_long() -> None:
    broker = strict(max_lease=0.01)
    put(broker)
    (lease,) = broker.acquire(QUEUE, limit=1, wait=0, lease_for=0.01)
    threading.Event().wait(0.02)
    misuse(lambda: broker.extend([lease], lease_for=0.01), "held for longer", broker)
    misuse(lambda: broker.ack([write(lease)], keep_for=0), "held for longer", broker)


def test_leases_of_several_queues_in_one_call() -> None:
    broker = strict()
    put(broker)
    put(broker, queue="other")
    leases = [take_one(broker), take_one(broker, queue="other")]
    misuse(lambda: broker.extend(leases, lease_for=LONG), "several queues", broker)
    misuse(lambda: broker.release([write(each) for each in leases]), "several queues", broker)
    targets = ["fatal", "elsewhere"]
    put(broker)
    put(broker)
    two = broker.acquire(QUEUE, limit=2, wait=0, lease_for=LONG)
    moved = [write(lease, queue=queue) for lease, queue in zip(two, targets, strict=True)]
    assert broker.release(moved) == frozenset()


def test_after_close() -> None:
    broker = strict()
    lease = held(broker)
    broker.close()
    broker.close()
    broker.interrupt(QUEUE)
    calls: list[Callable[[], object]] = [
        lambda: broker.enqueue([envelope()]),
        lambda: acquire(broker),
        lambda: broker.extend([lease], lease_for=LONG),
        lambda: broker.checkpoint([write(lease)]),
        lambda: broker.ack([write(lease)], keep_for=0),
        lambda: broker.release([write(lease)]),
        lambda: broker.stats(QUEUE),
        lambda: broker.purge(QUEUE),
        lambda: broker.browse(QUEUE, state=State.READY, limit=1),
        lambda: broker.get(["a"]),
        lambda: broker.cancel(["a"], keep_for=0),
        lambda: broker.enqueue_on(object(), [envelope()]),
        lambda: broker.warnings(),
    ]
    for call in calls:
        misuse(call, "after close", broker)


def test_a_lease_of_the_parent_process(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = strict()
    lease = held(broker)
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as if this were its child
    broker.after_fork()
    misuse(lambda: broker.extend([lease], lease_for=LONG), "the parent's", broker)
    misuse(lambda: broker.ack([write(lease)], keep_for=0), "the parent's", broker)


# -- what is allowed ----------------------------------------------------------------------------------


def test_ids_are_not_counted() -> None:
    broker, ids = strict(max_batch=3), ["a", "b", "c", "d"]
    assert broker.get(ids) == {}
    assert not broker.cancel(ids, keep_for=0)
    assert acquire(broker, ids=ids) == []


def test_what_the_contract_allows_is_passed_on() -> None:
    broker = strict()
    sent = [envelope("a", delay=LONG), envelope("b", priority=9), envelope("c", unique="k")]
    assert broker.enqueue(sent) == {}
    assert broker.enqueue([envelope("d", unique="k")]) == {"d": "c"}
    (lease,) = broker.acquire(QUEUE, limit=1, wait=0, lease_for=LONG, ids=["a"])
    assert broker.extend([lease], lease_for=LONG) == frozenset()
    assert broker.checkpoint([write(lease)]) == frozenset()
    assert broker.release([write(lease, seq=2, delay=LONG, queue="fatal")]) == frozenset()
    assert broker.stats("fatal").scheduled == 1
    assert [each.id for each in broker.browse(QUEUE, state=State.READY, limit=9)] == ["b", "c"]
    assert broker.get(["a"])["a"].queue == "fatal"
    assert list(broker.cancel(["b"], keep_for=LONG)) == ["b"]
    assert broker.purge(QUEUE) == 1
    assert broker.enqueue([]) == {}
    assert broker.ack([], keep_for=0) == broker.extend([], lease_for=LONG) == frozenset()
    assert list(broker.warnings()) == []
    assert broker.misuses == []


def test_a_task_that_was_acked_first_may_come_back_with_what_a_bury_added() -> None:
    broker = strict(max_payload=65_536)
    lease = held(broker)
    broker.ack([write(lease)], keep_for=0)
    buried = Envelope(id=lease.envelope.id, queue="fatal", body=bytes(65_536))
    assert broker.enqueue([buried]) == {}


def test_it_is_made_around_a_broker() -> None:
    with pytest.raises(InvalidURL):
        StrictBroker.from_url(None)  # type: ignore[arg-type]
    inner = open_broker("memory://?without=DELAY")
    broker = StrictBroker(inner)
    assert Capability.DELAY not in broker.capabilities
    assert isinstance(broker.limits, Limits)


def test_an_engine_that_breaks_a_rule_is_noticed_though_its_threads_swallow_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gotasks.worker.worker._LEAST_FLUSH", 0.1)  # what it was refused is sent for ever
    rightly = Run.write

    def stuck(self: Run, body: bytes, **options: object) -> Write:
        return msgspec.structs.replace(rightly(self, body, **options), seq=1)  # type: ignore[arg-type]

    monkeypatch.setattr(Run, "write", stuck)
    broker = StrictBroker(open_broker("memory://"))
    app = App(broker)

    def one(args: ArgsMap) -> ArgsMap:
        return args

    def two(args: ArgsMap) -> ArgsMap:
        return args

    app.queue(QUEUE).enqueue(app.register("chain", one, two), {})
    with app.worker(grace=0.1):
        for _ in range(1000):
            if broker.misuses:
                break
            threading.Event().wait(0.01)
        broker.close()
    assert any("this seq" in str(each) or "differs" in str(each) for each in broker.misuses)
