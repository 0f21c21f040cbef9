"""The engine: which broker an App uses, and when."""

from __future__ import annotations

import pytest

from gotasks import App, ArgsMap, Status
from gotasks.broker import Broker, Capability
from gotasks.discovery import open_broker
from gotasks.errors import ConfigurationError, Unsupported
from gotasks.memory import MemoryBroker
from tests.backends.contract import stats
from tests.backends.engine import QUEUE


def add(args: ArgsMap) -> ArgsMap:
    return {"n": args["n"] + 1}


def double(args: ArgsMap) -> ArgsMap:
    return {"n": args["n"] * 2}


def test_the_broker_that_is_set_goes_before_the_environment_before_the_argument(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lesser = "memory://?without=BROWSE"
    assert Capability.BROWSE in App("memory://").capabilities
    monkeypatch.setenv("GOTASKS_BROKER_URL", lesser)
    assert Capability.BROWSE not in App("memory://").capabilities
    assert Capability.BROWSE not in App().capabilities
    app = App(lesser)
    app.use_broker("memory://")  # as `gotasks --broker` does
    assert Capability.BROWSE in app.capabilities
    given = MemoryBroker()
    assert App(given).dispatch.broker is given  # an object, unlike a URL, isn't overruled
    monkeypatch.setenv("GOTASKS_BROKER_URL", "")
    assert Capability.BROWSE in App("memory://").capabilities


def test_an_app_without_a_broker_says_how_to_give_it_one() -> None:
    with pytest.raises(ConfigurationError, match="GOTASKS_BROKER_URL"):
        _ = App().dispatch


def test_nothing_connects_before_it_is_needed() -> None:
    app = App("redis://127.0.0.1:1/0")  # nothing listens there
    app.register("add", add)
    app.queue(QUEUE)
    assert Capability.SHARED in app.capabilities
    app.close()


@pytest.mark.needs("RECORDS")
def test_using_another_broker_inside_a_block(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(broker_url)
    app.register("add", add)
    outside = app.queue(QUEUE).enqueue("add", {"n": 1})
    monkeypatch.setenv("GOTASKS_BROKER_URL", "redis://127.0.0.1:1/0")
    with app.using("memory://") as same:
        assert same is app
        assert app.stats(QUEUE) == stats()
        app.queue(QUEUE).enqueue("add", {"n": 2})
        assert app.drain() == 1
    assert app.stats(QUEUE) == stats(ready=1)
    assert outside.status() is Status.READY
    app.close()


def test_task_ttl_is_refused_by_a_broker_that_keeps_no_records() -> None:
    with pytest.raises(Unsupported, match="task_ttl"):
        _ = App("memory://?without=RECORDS", task_ttl=10).dispatch
    for ttl, keep_for in ((None, 0.0), (0, 0.0)):
        assert App("memory://?without=RECORDS", task_ttl=ttl).keep_for == keep_for
    for ttl, keep_for in ((None, 1000.0), (0, 0.0), (7, 7.0)):
        assert App("memory://", task_ttl=ttl).keep_for == keep_for
    for bad in (-1, float("inf"), float("nan")):
        with pytest.raises(ConfigurationError):
            App("memory://", task_ttl=bad)


def test_an_app_can_be_closed_twice_and_used_again(broker_url: str) -> None:
    app = App(broker_url)
    broker: Broker = app.dispatch.broker
    app.close()
    app.close()
    assert app.dispatch.broker is not broker
    assert app.stats(QUEUE) == stats()
    app.close()


def test_two_apps_in_one_program_have_nothing_in_common() -> None:
    one, two = App("memory://"), App("memory://")
    one.register("add", add)
    one.queue(QUEUE).enqueue("add", {"n": 1})
    assert two.jobs == {}
    assert two.stats(QUEUE) == stats()
    two.register("add", double)
    two.queue(QUEUE, max_limit=3)
    assert one.queues[QUEUE].options.max_limit == 10


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "ä", "a/b", "fatal"])
def test_a_queues_name_is_checked(name: str) -> None:
    with pytest.raises(ConfigurationError):
        App("memory://").queue(name)


@pytest.mark.needs("RECORDS")
def test_the_broker_object_of_an_app_may_be_shared(broker_url: str) -> None:
    broker = open_broker(broker_url)
    one, two = App(broker), App(broker)
    one.register("add", add)
    two.register("add", add)
    task = one.queue(QUEUE).enqueue("add", {"n": 1})
    two.queue(QUEUE)
    assert two.drain() == 1
    assert task.args == {"n": 2}
    broker.close()
