"""The jobs of the chaos tests. Worker processes import this module; each handler writes itself into the history."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from gotasks import App, ArgsMap, reentrant
from gotasks.broker import BrokerURL
from gotasks.job import step
from tests.chaos import lifeline
from tests.chaos.freezing import FreezingBroker
from tests.chaos.history import Writer

#: Environment of a worker process: the file of the history; the write before which it freezes; whether it ends
#: when its stdin does.
HISTORY, FREEZE = "CHAOS_HISTORY", "CHAOS_FREEZE"

#: In an args map: a file; handlers that can wait do so until it exists.
GATE = "gate"

#: The longest wait for a gate, in seconds: only a test that has failed leaves one shut.
_LONGEST_WAIT = 60.0

_freeze = os.environ.get(FREEZE)
_history = Writer(os.environ.get(HISTORY, os.devnull))


def short(args: ArgsMap) -> ArgsMap:
    """Work for 5 to 50 ms."""
    with _history.handler() as place:
        time.sleep(random.uniform(0.005, 0.05))
        return passed(args, place)


def tenth(args: ArgsMap) -> ArgsMap:
    """Work for 100 ms."""
    with _history.handler() as place:
        time.sleep(0.1)
        return passed(args, place)


def second(args: ArgsMap) -> ArgsMap:
    """Work for a second."""
    with _history.handler() as place:
        time.sleep(1)
        return passed(args, place)


def gated(args: ArgsMap) -> ArgsMap:
    """Work until the gate is open."""
    with _history.handler() as place:
        _wait_for_gate(args)
        return passed(args, place)


def frozen(args: ArgsMap) -> ArgsMap:
    """In the process that is to freeze: return at once, or fail if it is its bury that shall be late.

    In another one: work until the gate is open.
    """
    with _history.handler() as place:
        if _freeze == "release":
            raise RuntimeError("to be buried too late")
        if _freeze is None:
            _wait_for_gate(args)
        return passed(args, place)


def failing(args: ArgsMap) -> ArgsMap:
    """Fail."""
    with _history.handler():
        raise RuntimeError("as always")


def poison(args: ArgsMap) -> ArgsMap:
    """Work for 300 ms, which kills this process."""
    with _history.handler() as place:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
        return passed(args, place)


def passed(args: ArgsMap, place: int) -> ArgsMap:
    """The args map after the step at this place."""
    return {**args, "trail": [*args["trail"], place]}


def build() -> App:
    """The app, without a broker of its own."""
    app = App()
    # The kills are the test's, not the tasks': a task that meets several of them isn't poison.
    app.queue("storm", max_crashes=20)
    app.queue("chaos")
    first, last = step(reentrant(short), name="first"), step(reentrant(short), name="last")
    app.register("storm-plain", first, step(short, name="middle"), last)
    app.register("storm-reentrant", first, step(reentrant(short), name="middle"), last)
    late, after = step(gated, name="late"), step(short, name="after")
    app.register("gated-plain", first, late, after)
    app.register("gated-reentrant", first, reentrant(late, max_times=0), after)
    late = step(frozen, name="late")
    app.register("frozen-plain", late, after)
    app.register("frozen-plain-last", late)
    app.register("frozen-reentrant", reentrant(late, max_times=0), after)
    app.register("frozen-reentrant-last", reentrant(late, max_times=0))
    app.register("long", *(step(tenth, name=f"s{number:02}") for number in range(20)))
    app.register("failing-in-slot", reentrant(failing, max_times=3, sleepy_ms=900))
    app.register("failing-delayed", reentrant(failing, max_times=3, sleepy_ms=1500))
    app.register("poison-plain", poison)
    app.register("poison-reentrant", reentrant(poison, max_times=0))
    app.register("errand", short)
    app.register("slow-reentrant", reentrant(second))
    app.register("errand-reentrant", reentrant(short))
    return app


def _wait_for_gate(args: ArgsMap) -> None:
    gate, end = Path(args[GATE]), time.monotonic() + _LONGEST_WAIT
    while not gate.exists() and time.monotonic() < end:
        time.sleep(0.01)


app = build()
app.events.listen(_history.listen)
if _freeze is not None:
    _broker = FreezingBroker.from_url(BrokerURL(os.environ["GOTASKS_BROKER_URL"]))
    _broker.kind, _broker.history = _freeze, _history
    app.use_broker(_broker)
lifeline.hold()
