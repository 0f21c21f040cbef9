"""The engine: replies that were lost and writes that were refused (guarantees G1, G3, G7, G8)."""

from __future__ import annotations

import threading

import pytest

from gotasks import ArgsMap, reentrant
from gotasks.errors import (
    BrokerClosed,
    BrokerUnavailable,
    ConfigurationError,
    GotasksError,
    PayloadTooLarge,
    Rejected,
)
from gotasks.events import BrokerDown, BrokerUp, LeaseLost, TaskSucceeded
from gotasks.task import Outcome
from tests.backends.contract import stats
from tests.backends.engine import QUEUE, Engine, Faulty, Steps, times


def lost_reply() -> BrokerUnavailable:
    return BrokerUnavailable("the connection was cut after the request")


@pytest.mark.needs("RECORDS")
@pytest.mark.parametrize("call", ["checkpoint", "ack"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_write_whose_outcome_is_unknown_is_repeated_until_it_is_answered(
    broker_url: str, call: str, when: str
) -> None:
    broker = Faulty(broker_url)
    engine = Engine(broker)
    steps = Steps()
    getattr(broker, when)[call] = times(3, lost_reply)
    task = engine.enqueue(steps.one, steps.two)
    with engine.app.worker():
        assert task.wait(timeout=20) == {"one": True, "two": True}
        # An ack that had taken effect is answered "lost" when it's repeated: not known to be sure.
        if call == "ack" and when == "after":
            assert [fact.sure for fact in engine.watch.wait(LeaseLost, task)] == [False]
        else:
            engine.watch.wait(TaskSucceeded, task)
            assert engine.watch.all(BrokerUp)
    assert steps.calls == ["one", "two"]
    assert broker.calls.count(call) >= 2
    assert [fact.attempt for fact in engine.watch.all(BrokerDown)][:2] in ([1, 2], [1])
    engine.close()


@pytest.mark.needs("IDEMPOTENT")
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_enqueue_whose_outcome_is_unknown_is_repeated_and_stores_one_task(
    broker_url: str, when: str
) -> None:
    broker = Faulty(broker_url)
    engine = Engine(broker)
    getattr(broker, when)["enqueue"] = times(2, lost_reply)
    task = engine.enqueue(engine.keep, args={"order": 42})
    assert broker.calls.count("enqueue") == 3
    assert engine.app.stats(QUEUE) == stats(ready=1)
    engine.run()
    assert engine.result(task) == {"order": 42}
    engine.close()


@pytest.mark.needs("RECORDS")
def test_an_enqueue_that_stays_unknown_says_which_ids_it_leaves_open(broker_url: str) -> None:
    broker = Faulty(broker_url)
    app = Engine(broker, task_ttl=10).app  # too short for a repeat to be told from a new task
    app.register("job", lambda_job)
    broker.after["enqueue"] = times(1, lost_reply)
    with pytest.raises(BrokerUnavailable) as caught:
        app.queue(QUEUE).enqueue_many("job", [{}, {}])
    assert broker.calls.count("enqueue") == 1
    assert len(caught.value.ids) == 2
    assert broker.get(caught.value.ids).keys() == set(caught.value.ids)
    broker.close()


@pytest.mark.needs("IDEMPOTENT")
@pytest.mark.parametrize(
    "error",
    [
        Rejected("not any more", ids=["some"]),
        ConfigurationError("not any more"),
        BrokerClosed("not any more"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_enqueue_that_is_refused_after_a_lost_reply_may_be_stored_all_the_same(
    broker_url: str, error: GotasksError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is certain of the repeat isn't of the first attempt: the caller learns which ids are left open."""
    broker = Faulty(broker_url)
    app = Engine(broker).app
    app.register("job", lambda_job)
    assert app.stats(QUEUE) == stats()  # the first call may take longer than the patience
    monkeypatch.setattr("gotasks.dispatch.PATIENCE", 0.5)
    answered = threading.Event()

    def lose() -> None:
        if not answered.is_set():
            answered.set()
            raise lost_reply()

    def refuse() -> None:
        if answered.is_set():
            raise error

    broker.after["enqueue"], broker.before["enqueue"] = lose, refuse
    with pytest.raises(BrokerUnavailable, match="not any more") as caught:
        app.queue(QUEUE).enqueue("job", {})
    assert app.stats(QUEUE) == stats(ready=1)
    assert len(caught.value.ids) == 1
    broker.close()


def lambda_job(args: ArgsMap) -> None:
    return None


@pytest.mark.needs("TIMED_LEASE")
def test_an_acquire_whose_reply_was_lost_is_a_death(broker_url: str) -> None:
    """The task was delivered as far as the broker knows: a plain step is in doubt, a reentrant one runs."""
    broker = Faulty(broker_url)
    engine = Engine(broker)
    steps = Steps()
    plain = engine.enqueue(steps.one, lease=0.5)
    broker.after["acquire"] = times(1, lost_reply)
    with pytest.raises(BrokerUnavailable):
        broker.acquire(QUEUE, limit=1, wait=0, lease_for=0.5)
    careful = engine.enqueue(reentrant(steps.two), engine.keep)
    engine.run()
    assert steps.calls == ["two"]
    assert engine.failure(plain).outcome is Outcome.IN_DOUBT
    assert engine.result(careful) == {"two": True}
    engine.close()


@pytest.mark.parametrize("call", ["checkpoint", "ack", "release"])
def test_a_write_that_the_broker_rejects_buries_its_run_and_no_other(broker_url: str, call: str) -> None:
    broker = Faulty(broker_url)
    engine = Engine(broker)
    steps = Steps()
    failed = threading.Event()

    def two(args: ArgsMap) -> ArgsMap:
        if call == "release" and not failed.is_set():
            failed.set()
            raise ValueError("buried by a release that is rejected")
        return steps.two(args)

    refused = engine.enqueue(steps.one, two, args={"order": 42})
    rejected = times(1, lambda: PayloadTooLarge("too large", ids=[refused.id]))
    broker.before[call] = rejected
    engine.run()
    good = engine.enqueue(steps.one, engine.keep)
    engine.run()

    failure = engine.failure(refused)
    assert failure.outcome is Outcome.REJECTED
    assert failure.in_doubt is (call != "release")
    assert engine.result(good) == {"one": True}
    assert engine.app.stats("fatal") == stats(ready=1)
    engine.close()
