"""`gotasks status`: where a task is."""

from __future__ import annotations

import click

from gotasks.app import App
from gotasks.cli import exits
from gotasks.cli.options import json_option
from gotasks.cli.output import print_fields, print_json
from gotasks.cli.records import screen, status_json
from gotasks.cli.target import on_broker
from gotasks.task import Status


@click.command(epilog=exits.EPILOG)
@click.argument("task_id", metavar="ID")
@json_option
@on_broker()
def status(app: App, *, task_id: str, as_json: bool) -> None:
    """Show where a task is, and why it failed.

    Ends with 1 if the task is in the fatal queue, was cancelled, or isn't known (any more).
    """
    state, task = app.task(task_id).snapshot()
    fields = status_json(app, state, task)
    if as_json:
        print_json(fields)
    else:
        print_fields(screen(fields))
    if state in (Status.FATAL, Status.CANCELLED):
        raise click.exceptions.Exit(exits.FAILED)
