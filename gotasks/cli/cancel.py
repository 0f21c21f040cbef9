"""`gotasks cancel`: end tasks before they are done."""

from __future__ import annotations

from collections.abc import Sequence

import click

from gotasks.app import App
from gotasks.broker import Capability, State
from gotasks.cli import exits
from gotasks.cli.group import complain
from gotasks.cli.options import json_option
from gotasks.cli.output import print_json
from gotasks.cli.target import on_broker


@click.command(epilog=exits.EPILOG)
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@json_option
@on_broker()
def cancel(app: App, *, task_ids: tuple[str, ...], as_json: bool) -> None:
    """End tasks, wherever they are: waiting, running, or in the fatal queue.

    No further step is started. The step that a worker runs goes on, unless it is async or asks whether it was
    revoked, and what it gives is discarded.

    Ends with 1 if one of them had ended already, or isn't known (any more).
    """
    asked = list(dict.fromkeys(task_ids))
    ended = set(app.dispatch.cancel(asked, keep_for=app.keep_for))
    cancelled = [each for each in asked if each in ended]
    failed = _why_not(app, [each for each in asked if each not in ended])
    if as_json:
        failures = [{"id": task_id, "error": error} for task_id, error in failed]
        print_json({"cancelled": [{"id": each} for each in cancelled], "failed": failures})
    else:
        for each in cancelled:
            click.echo(f"{each} cancelled")
    for _, error in failed:
        complain(error)
    if failed:
        raise click.exceptions.Exit(exits.FAILED)


def _why_not(app: App, ids: Sequence[str]) -> list[tuple[str, str]]:
    """The ids that couldn't be cancelled, each with a sentence."""
    recorded = Capability.RECORDS in app.capabilities
    records = app.dispatch.get(ids) if recorded else {}
    unknown = "isn't known (any more)" if recorded else "has ended, or isn't known"
    reasons = {State.DONE: "is done", State.CANCELLED: "was cancelled before"}
    states = {each: records[each].state if each in records else None for each in ids}
    return [
        (each, f"task {each} {unknown if state is None else reasons.get(state, 'could not be cancelled')}")
        for each, state in states.items()
    ]
