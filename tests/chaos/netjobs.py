"""The jobs of the tests of networks and servers. Worker processes import this module; handlers write the history."""

from __future__ import annotations

import os
import time

from gotasks import App, ArgsMap, reentrant
from gotasks.conformance.kit import lifeline
from gotasks.conformance.kit.history import Writer
from gotasks.job import step

#: Environment of a worker process: the file of the history; whether it ends when its stdin does.
HISTORY = "CHAOS_HISTORY"

QUEUE = "net"

_history = Writer(os.environ.get(HISTORY, os.devnull))


def work(args: ArgsMap) -> ArgsMap:
    """Work for `ms` milliseconds."""
    with _history.handler() as place:
        time.sleep(args["ms"] / 1000)
        return {**args, "trail": [*args["trail"], place]}


def build() -> App:
    """The app, without a broker of its own."""
    app = App()
    app.queue(QUEUE, monitor_interval=60)  # its calls would use up the connections that a test watches
    plain = step(work, name="only")
    app.register("single", plain)
    app.register("single-again", reentrant(plain, max_times=0))
    middle = step(reentrant(work, max_times=0), name="middle")
    app.register("chain", step(work, name="first"), middle, step(work, name="last"))
    return app


def first_args(ms: int) -> ArgsMap:
    """The args map with which to enqueue any of these jobs."""
    return {"ms": ms, "trail": []}


app = build()
app.events.listen(_history.listen)
lifeline.hold()
