"""`gotasks enqueue`: store one task, or many from a file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import click

from gotasks.app import App
from gotasks.cli import exits
from gotasks.cli.options import args_map, json_option, key_values, option, seconds_or_zero
from gotasks.cli.output import compact, print_json
from gotasks.cli.target import on_broker, warn_if_undeclared
from gotasks.errors import (
    BrokerUnavailable,
    ConfigurationError,
    GotasksError,
    TaskCancelled,
    TaskFailed,
    WaitTimeout,
)
from gotasks.handle import TaskHandle
from gotasks.queue import Queue

#: Lines of a file that are stored in one call.
BATCH = 1000


@click.command(epilog=exits.EPILOG)
@click.argument("job")
@click.argument("pairs", metavar="[KEY=JSON]...", nargs=-1, callback=key_values)
@option(
    "-q",
    "--queue",
    "queue_name",
    metavar="QUEUE",
    help="Default: the queue that the app declares, if it's one.",
)
@option("--args", "args_text", metavar="JSON", help="The whole args map: '{\"order\": 42}'.")
@option(
    "--delay",
    type=seconds_or_zero,
    default=0.0,
    metavar="SECONDS",
    help="Ready only after that time.",
)
@option("--priority", type=click.IntRange(0, 9), default=0, help="Higher first.")
@option("--unique", metavar="KEY", help="While a task with this key lives, store no second one.")
@option(
    "--id", "task_id", metavar="ID", help="An id of your own; stored only once, however often you repeat."
)
@option(
    "--wait",
    type=seconds_or_zero,
    metavar="SECONDS",
    help="Wait for the end and print the final args.",
)
@option(
    "--many", type=click.File("r", encoding="utf-8"), metavar="FILE", help="One args map a line; - is stdin."
)
@json_option
@on_broker(needs_app=True)
def enqueue(
    app: App,
    *,
    job: str,
    pairs: dict[str, Any],
    queue_name: str | None,
    args_text: str | None,
    delay: float,
    priority: int,
    unique: str | None,
    task_id: str | None,
    wait: float | None,
    many: TextIO | None,
    as_json: bool,
) -> None:
    """Store a task of JOB and print its id. Its args map is given by key=json pairs, or by --args.

    \b
      gotasks enqueue checkout order=42 'name="Ann"' -q orders --app shop:app
      gotasks enqueue checkout --args '{"order": 42}' --wait 10 --app shop:app
      gotasks enqueue checkout --many orders.jsonl --app shop:app
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    if many is not None:
        if pairs or args_text is not None or unique is not None or task_id is not None or wait is not None:
            raise click.UsageError(
                "--many takes its args maps from the file: no pairs, --args, --unique, --id, --wait"
            )
        _enqueue_many(_queue(app, queue_name), job, many, delay, priority, as_json=as_json)
        return
    if pairs and args_text is not None:
        raise click.UsageError("give the args map by key=json pairs or by --args, not by both")
    args = pairs if args_text is None else args_map(args_text, "the value of --args")
    queue = _queue(app, queue_name)
    try:
        task = queue.enqueue(job, args, delay=delay, priority=priority, unique=unique, task_id=task_id)
    except BrokerUnavailable as error:
        if not error.ids:
            raise
        hint = f"whether task {error.ids[0]} was stored isn't known: 'gotasks status {error.ids[0]}' tells"
        raise BrokerUnavailable(f"{error}; {hint}", ids=error.ids) from error
    fields: dict[str, Any] = {"id": task.id, "queue": queue.name, "job": job}
    if not as_json:
        click.echo(task.id)
    if wait is None:
        if as_json:
            print_json(fields)
    else:
        _wait(task, wait, fields, as_json=as_json)


def _queue(app: App, name: str | None) -> Queue:
    declared = app.queues
    if name is None:
        if len(declared) != 1:
            known = f"the app declares {', '.join(sorted(declared))}" if declared else "the app declares none"
            raise click.UsageError(f"which queue? Say -q NAME; {known}")
        return next(iter(declared.values()))
    warn_if_undeclared(app, name)
    return app.queue(name)


def _wait(task: TaskHandle, seconds: float, fields: dict[str, Any], *, as_json: bool) -> None:
    """Wait for the end; print the final args map, or with `as_json` the fields and what became of the task."""
    try:
        result = task.wait(seconds)
    except (TaskFailed, TaskCancelled, WaitTimeout) as error:
        if as_json:
            state = "cancelled" if isinstance(error, TaskCancelled) else "fatal"
            state = task.status().value if isinstance(error, WaitTimeout) else state
            print_json({**fields, "state": state, "args": None, "error": str(error)})
        raise
    if as_json:
        print_json({**fields, "state": "done", "args": result, "error": None})
    else:
        click.echo(compact(result))


def _enqueue_many(
    queue: Queue, job: str, file: TextIO, delay: float, priority: int, *, as_json: bool
) -> None:
    ids: list[str] = []
    count = 0
    try:
        for first, batch in _batches(file):
            try:
                tasks = queue.enqueue_many(job, batch, delay=delay, priority=priority)
            except BrokerUnavailable as error:
                last = first + len(batch) - 1
                raise BrokerUnavailable(
                    f"{error}; whether lines {first} to {last} were stored isn't known"
                ) from error
            count += len(tasks)
            if as_json:
                ids += [task.id for task in tasks]
            else:
                click.echo("\n".join(task.id for task in tasks))
    except (GotasksError, click.ClickException, UnicodeDecodeError) as error:
        if as_json:
            print_json({"queue": queue.name, "job": job, "count": count, "ids": ids})
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        told = f"{message}. {count} tasks were stored before that"
        if isinstance(error, BrokerUnavailable):
            raise BrokerUnavailable(told) from error
        raise ConfigurationError(told) from error
    if as_json:
        print_json({"queue": queue.name, "job": job, "count": count, "ids": ids})


def _batches(file: TextIO) -> Iterator[tuple[int, Sequence[dict[str, Any]]]]:
    """The number of the first line, and the args maps, of each batch; empty lines are passed over."""
    lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
    while part := list(itertools.islice(lines, BATCH)):
        yield part[0][0], [args_map(line, f"line {number} of {file.name}") for number, line in part]
