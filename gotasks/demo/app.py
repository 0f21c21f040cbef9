"""The demo as an app: `gotasks worker gotasks.demo.app:app`. Made when it is asked for, from the environment."""

from __future__ import annotations

import functools
import os
import signal
import threading
from typing import Any

from gotasks.app import App
from gotasks.demo.chain import Chain, make_app
from gotasks.demo.plan import Plan

#: The environment variable with a file descriptor that ends when the demo does.
LIFELINE = "GOTASKS_DEMO_LIFELINE"


def __getattr__(name: str) -> Any:
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _app() -> App:
    plan = Plan.of_environment()
    app = make_app(plan, Chain(plan))
    if LIFELINE in os.environ:
        threading.Thread(target=_stop_with, args=(int(os.environ[LIFELINE]),), daemon=True).start()
    return app


def _stop_with(lifeline: int) -> None:
    """Stop this worker when the demo is gone, however it went: nobody else would."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
