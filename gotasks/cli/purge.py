"""`gotasks purge`: empty a queue."""

from __future__ import annotations

import click

from gotasks.app import App
from gotasks.cli import exits
from gotasks.cli.options import confirm, json_option, yes_option
from gotasks.cli.output import print_json
from gotasks.cli.target import on_broker, warn_if_undeclared
from gotasks.task import check_queue_name


@click.command(epilog=exits.EPILOG)
@click.argument("queue")
@yes_option
@json_option
@on_broker()
def purge(app: App, *, queue: str, yes: bool, as_json: bool) -> None:
    """Remove all waiting tasks of a queue for good.

    That is what is ready or scheduled. What a worker holds stays.
    """
    check_queue_name(queue)
    warn_if_undeclared(app, queue)
    confirm(f"Remove all waiting tasks of queue {queue!r} for good?", yes=yes)
    count = app.dispatch.purge(queue)
    if as_json:
        print_json({"queue": queue, "purged": count})
    else:
        click.echo(f"{count} removed from {queue}")
