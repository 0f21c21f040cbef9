"""`gotasks queues`: how much waits where."""

from __future__ import annotations

import click

from gotasks.app import App
from gotasks.cli import exits
from gotasks.cli.options import json_option
from gotasks.cli.output import print_json, print_table
from gotasks.cli.target import on_broker


@click.command(epilog=exits.EPILOG)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@json_option
@on_broker()
def queues(app: App, *, names: tuple[str, ...], as_json: bool) -> None:
    """Show how many tasks wait in each queue.

    Ready, scheduled for later, and leased, which means held by a worker.

    Without names: the queues that the app declares. The fatal queue comes last in any case; what is ready there
    waits for a person.
    """
    shown = dict.fromkeys([*(names or app.queues), app.fatal_queue])
    rows = [(name, app.stats(name)) for name in shown]
    if as_json:
        print_json(
            [
                {
                    "queue": name,
                    "ready": each.ready,
                    "scheduled": each.scheduled,
                    "leased": each.leased,
                    "fatal": name == app.fatal_queue,
                }
                for name, each in rows
            ]
        )
        return
    numbers = ("ready", "scheduled", "leased")
    print_table(
        ("queue", *numbers),
        [
            (name, *("?" if (count := getattr(each, key)) is None else count for key in numbers))
            for name, each in rows
        ],
        right=numbers,
    )
