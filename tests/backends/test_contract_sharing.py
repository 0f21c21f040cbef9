"""The broker contract: calls that a broker doesn't have, and what the memory broker can do without."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gotasks import App
from gotasks.broker import Broker, Capability, State
from gotasks.errors import InvalidURL, Unsupported
from tests.backends.contract import LONG, QUEUE, envelope, stats

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
        Capability.TRANSACTIONAL: lambda: app.dispatch.enqueue_on(object(), [envelope()]),
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
    if Capability.TRANSACTIONAL not in broker.capabilities:
        with pytest.raises(Unsupported):
            broker.enqueue_on(object(), [envelope()])
        with pytest.raises(Unsupported):
            asyncio.run(broker.aenqueue_on(object(), [envelope()]))
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
