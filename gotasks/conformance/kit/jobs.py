"""Jobs: what the worker processes of the suite run. Each handler writes itself into the history.

`gotasks.conformance.kit.jobs:app` is made when a worker asks for it, of the environment that `kit.crew` gave it.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gotasks import App, ArgsMap, reentrant
from gotasks.broker import Broker, BrokerURL
from gotasks.conformance.faulty import ENGINE_FAULT
from gotasks.conformance.kit import lifeline
from gotasks.conformance.kit.history import Writer
from gotasks.conformance.kit.killpoints import VARIABLE, Killpoint, PointedBroker
from gotasks.conformance.kit.served import load
from gotasks.discovery import open_broker
from gotasks.job import step

#: Environment of a worker process: the file of the history; the broker's class, if the URL doesn't lead to it; names
#: of queues, between commas; and `max_crashes` of these.
HISTORY, CLASS = "GOTASKS_CONFORMANCE_HISTORY", "GOTASKS_CONFORMANCE_CLASS"
QUEUES, FATAL = "GOTASKS_CONFORMANCE_QUEUES", "GOTASKS_CONFORMANCE_FATAL"
MAX_CRASHES = "GOTASKS_CONFORMANCE_MAX_CRASHES"

#: In an args map: a file; handlers that can wait do so until it exists.
GATE = "gate"

#: The longest wait for a gate, in seconds: only a test that has failed leaves one shut.
_LONGEST_WAIT = 60.0

_kept: list[object] = []


class Handlers:
    """The handlers of one process. In an args map, "ms" is how long each step works (else 5 to 50 ms)."""

    def __init__(self, history: Writer, point: Killpoint | None = None) -> None:
        self._history = history
        self._point = point or Killpoint(history)

    def work(self, args: ArgsMap) -> ArgsMap:
        """Work for a while."""
        with self._history.handler(args["trail"]) as place:
            self._point.passing("in_step")
            time.sleep(args["ms"] / 1000 if "ms" in args else random.uniform(0.005, 0.05))
            return _passed(args, place)

    def gated(self, args: ArgsMap) -> ArgsMap:
        """Work until the gate is open; at once, where there is none."""
        with self._history.handler(args["trail"]) as place:
            self._point.passing("in_step")
            _wait_for_gate(args)
            return _passed(args, place)

    def late(self, args: ArgsMap) -> ArgsMap:
        """In a process with a kill-point: return at once, or fail with "fails". In another one: as `gated`."""
        with self._history.handler(args["trail"]) as place:
            self._point.passing("in_step")
            if not self._point.name:
                _wait_for_gate(args)
            elif args.get("fails"):
                raise RuntimeError("to be buried too late")
            return _passed(args, place)

    def failing(self, args: ArgsMap) -> ArgsMap:
        """Fail."""
        with self._history.handler(args["trail"]):
            raise RuntimeError("as always")

    def poison(self, args: ArgsMap) -> ArgsMap:
        """Work for a while, which kills this process."""
        with self._history.handler(args["trail"]) as place:
            time.sleep(args.get("ms", 300) / 1000)
            os.kill(os.getpid(), signal.SIGKILL)
            return _passed(args, place)


def build(history: Writer, point: Killpoint | None = None, **options: Any) -> App:
    """An app with all the jobs, without a broker."""
    app = App(**options)
    do = Handlers(history, point)
    first, last = step(reentrant(do.work), name="first"), step(reentrant(do.work), name="last")
    middle = step(do.work, name="middle")
    app.register("storm-plain", first, middle, last)
    app.register("storm-reentrant", first, reentrant(middle), last)
    app.register(
        "four-steps", first, middle, step(reentrant(do.work), name="third"), step(do.work, name="end")
    )
    app.register("pair", step(do.gated, name="one"), step(do.work, name="two"))
    app.register("plain-then-reentrant", step(do.work, name="one"), step(reentrant(do.work), name="two"))
    late, after = step(do.gated, name="late"), step(do.work, name="after")
    app.register("gated-plain", first, late, after)
    app.register("gated-reentrant", first, reentrant(late, max_times=0), after)
    late = step(do.late, name="late")
    app.register("late-plain", late, after)
    app.register("late-plain-last", late)
    app.register("late-reentrant", reentrant(late, max_times=0), after)
    app.register("late-reentrant-last", reentrant(late, max_times=0))
    app.register("long", *(step(do.work, name=f"s{number:02}") for number in range(20)))
    app.register("failing", first, step(do.failing, name="failing"))
    app.register("failing-in-slot", reentrant(step(do.failing, name="failing"), max_times=3, sleepy_ms=900))
    app.register("failing-delayed", reentrant(step(do.failing, name="failing"), max_times=3, sleepy_ms=1500))
    poison = step(do.poison, name="poison")
    app.register("poison-plain", poison)
    app.register("poison-reentrant", reentrant(poison, max_times=0))
    app.register("errand", step(do.work, name="errand"))
    app.register("errand-reentrant", reentrant(step(do.work, name="errand")))
    return app


def declare(app: App, queues: Iterable[str], max_crashes: int) -> None:
    """Declare these queues. They aren't measured: nobody looks at the metrics."""
    for name in queues:
        app.queue(name, max_crashes=max_crashes, monitor_interval=3600)


def opened(url: str, spec: str) -> Broker:
    """The broker at `url`, of the class that `spec` names, or of the one that the URL leads to."""
    return load(spec).from_url(BrokerURL(url)) if spec else open_broker(url)


def _passed(args: ArgsMap, place: int) -> ArgsMap:
    """The args map after the step at this place."""
    return {**args, "trail": [*args["trail"], place]}


def _wait_for_gate(args: ArgsMap) -> None:
    gate, end = args.get(GATE), time.monotonic() + _LONGEST_WAIT
    while gate and not Path(gate).exists() and time.monotonic() < end:
        time.sleep(0.005)


def _worker_app() -> App:
    """The app of this process, as its environment says."""
    environment = os.environ
    fault = environment.get(ENGINE_FAULT)
    if fault:
        from gotasks.conformance.faulty.everything import FAULTS

        patch = FAULTS[fault].patch
        assert patch is not None
        context = patch()
        context.__enter__()
        _kept.append(context)  # to the end of the process: one that is collected undoes what it has patched
    history = Writer(environment.get(HISTORY, os.devnull))
    point = Killpoint.of(environment.get(VARIABLE), history)
    app = build(history, point, fatal_queue=environment.get(FATAL, "fatal"))
    declare(app, filter(None, environment.get(QUEUES, "").split(",")), int(environment.get(MAX_CRASHES, "3")))
    app.events.listen(history.listen)
    app.events.listen(point.listen)
    if url := environment.get("GOTASKS_BROKER_URL"):
        app.use_broker(PointedBroker(opened(url, environment.get(CLASS, "")), point, history))
    lifeline.hold()
    return app


def __getattr__(name: str) -> App:
    # Not when the module is imported: rows do that as well, and the module is no worker there.
    if name != "app":
        raise AttributeError(name)
    app = globals()["app"] = _worker_app()
    return app
