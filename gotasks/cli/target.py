"""Target: the app that a command works on, from --app, --broker and their environment variables."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec

import click
from click.core import ParameterSource

from gotasks.app import App
from gotasks.broker import Capability
from gotasks.cli.modules import import_included, load_app
from gotasks.cli.options import app_option, broker_option
from gotasks.cli.output import note
from gotasks.errors import ConfigurationError

P = ParamSpec("P")


def on_broker(
    *, needs_app: bool = False
) -> Callable[[Callable[Concatenate[App, P], None]], Callable[..., None]]:
    """Give a command --app and --broker, and call it with the app that they name, which is closed afterwards.

    Refuses a broker that other processes can't see. Without an app it gets one that has no jobs.
    """

    def decorate(command: Callable[Concatenate[App, P], None]) -> Callable[..., None]:
        @app_option
        @broker_option
        @functools.wraps(command)
        def wrapper(app_spec: str | None, broker: str | None, *args: P.args, **kwargs: P.kwargs) -> None:
            app = find_app(app_spec, broker, needs_app=needs_app)
            try:
                refuse_unshared(app, "this command")
                command(app, *args, **kwargs)
            finally:
                app.close()

        return wrapper

    return decorate


def find_app(spec: str | None, broker: str | None, *, needs_app: bool) -> App:
    """The app that the options name, its modules imported. Raises ConfigurationError or UsageError."""
    if spec is not None:
        app = load_app(spec)
        import_included(app)
    elif needs_app:
        raise click.UsageError("name the app, as in --app shop.tasks:app, or set GOTASKS_APP")
    elif broker is None:
        raise click.UsageError(
            "which broker? Name the app that knows it, --app module:app (GOTASKS_APP), or the broker itself, "
            "--broker URL (GOTASKS_BROKER_URL)"
        )
    else:
        app = App(broker)
    given = click.get_current_context().get_parameter_source("broker")
    if broker is not None and given is ParameterSource.COMMANDLINE:
        app.use_broker(broker)  # what comes from the environment, the app itself puts before its own
    return app


def refuse_unshared(app: App, what: str) -> None:
    """Raise ConfigurationError if another process doesn't see what is in the app's broker."""
    if Capability.SHARED not in app.capabilities:
        raise ConfigurationError(
            f"{what} needs a broker that several processes can share, and {app.broker} lives in one process: "
            "name another, as in --broker redis://127.0.0.1:6379/0"
        )


def undeclared(app: App, queue: str) -> str | None:
    """A sentence if the app doesn't declare this queue; ask before `App.queue`, which declares it."""
    declared = app.queues
    if queue in declared or queue == app.fatal_queue:
        return None
    close = difflib.get_close_matches(queue, declared, n=1)
    known = f"it declares {', '.join(sorted(declared))}" if declared else "it declares none"
    hint = f"did you mean {close[0]!r}?" if close else known
    return f"the app declares no queue {queue!r}, so the default options hold; {hint}"


def warn_if_undeclared(app: App, queue: str) -> None:
    """Say on stderr that the app doesn't declare this queue, if it declares others."""
    sentence = undeclared(app, queue)
    if sentence is not None and app.queues:
        note(f"Warning: {sentence}")
