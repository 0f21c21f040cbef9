"""`gotasks fatal`: look at failed tasks, resume them, drop them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import click

from gotasks.app import App
from gotasks.cli import exits
from gotasks.cli.group import complain
from gotasks.cli.options import F, confirm, json_option, key_values, option, yes_option
from gotasks.cli.output import first_line, note, print_fields, print_json, print_table
from gotasks.cli.records import fatal_json, screen, step_of
from gotasks.cli.target import on_broker
from gotasks.errors import BrokerError, GotasksError, Rejected, Unsupported
from gotasks.fatal import FatalTask
from gotasks.task import Outcome

#: Tasks that are asked for in one call.
_PAGE = 200


@dataclass(frozen=True)
class Filters:
    """Which tasks of the fatal queue are meant."""

    job: str | None
    step: str | None
    outcome: str | None

    def __bool__(self) -> bool:
        return any((self.job, self.step, self.outcome))

    def match(self, app: App, found: FatalTask) -> bool:
        """Whether this one is."""
        return (
            (self.job is None or (found.task is not None and found.task.job_name == self.job))
            and (self.outcome is None or found.failure.outcome.value == self.outcome)
            and (self.step is None or step_of(app, found) == self.step)
        )


def _filters(command: F) -> F:
    outcomes = click.Choice([each.value for each in Outcome])
    for add in (
        option("--outcome", type=outcomes, help="Only tasks that are here for this reason."),
        option("--step", metavar="NAME", help="Only tasks that stopped at this step."),
        option("--job", metavar="NAME", help="Only tasks of this job."),
    ):
        command = add(command)
    return command


@click.group(epilog=exits.EPILOG)
def fatal() -> None:
    """List, show, retry and drop failed tasks.

    They wait in the fatal queue, with the args of the step that failed, until a person decides.

    A task is "in doubt" if the step where it stopped isn't reentrant and may have been started already: find out
    whether it was; then `retry --force` starts it (again), and `retry --from-step` with a later step skips it.
    """


@fatal.command("list", epilog=exits.EPILOG)
@_filters
@option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Show that many at the most."
)
@option("--after", metavar="ID", help="Go on after this task.")
@json_option
@on_broker()
def list_(
    app: App,
    *,
    job: str | None,
    step: str | None,
    outcome: str | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """List what is in the fatal queue, the oldest first."""
    found = list(islice(_matching(app, Filters(job, step, outcome), after), limit + 1))
    shown = [fatal_json(app, each, whole=False) for each in found[:limit]]
    if as_json:
        print_json(shown)
        return
    if not shown:
        note("nothing there")
        return
    print_table(
        ("id", "job", "step", "outcome", "error"),
        [
            (
                each["id"],
                each["job"] or "?",
                each["step"] or "?",
                each["outcome"]
                + (" (in doubt)" if each["in_doubt"] and each["outcome"] != "in_doubt" else ""),
                first_line(each["error"]),
            )
            for each in shown
        ],
    )
    if len(found) > limit:
        note(f"There is more: --after {shown[-1]['id']}")


@fatal.command(epilog=exits.EPILOG)
@click.argument("task_id", metavar="ID")
@json_option
@on_broker()
def show(app: App, *, task_id: str, as_json: bool) -> None:
    """Show all that is known of one task: where it stopped and why, its args, the traceback."""
    found = app.fatal.show(task_id)
    fields = fatal_json(app, found, whole=True)
    if as_json:
        print_json(fields)
        return
    print_fields(screen(fields))
    if found.task is None:
        click.echo(f"\nThe body isn't a record, so it can only be dropped: gotasks fatal drop {task_id}")
    elif found.failure.in_doubt:
        click.echo("\nIn doubt: this step may have been started already. Find out whether it was; then")
        click.echo(f"  gotasks fatal retry {task_id} --force             starts it (again)")
        click.echo(f"  gotasks fatal retry {task_id} --from-step NAME    goes on at a later step")


@fatal.command(epilog=exits.EPILOG)
@click.argument("task_ids", metavar="[ID]...", nargs=-1)
@option("--from-step", metavar="NAME", help="Go on at this step instead of the one that failed.")
@option(
    "--set",
    "changes",
    callback=key_values,
    multiple=True,
    metavar="KEY=JSON",
    help="Mend the args map before.",
)
@click.option("--force", is_flag=True, help="Even if a step that isn't reentrant may run a second time.")
@click.option("--all", "every", is_flag=True, help="All tasks, or all that the filters let through.")
@_filters
@json_option
@on_broker()
def retry(
    app: App,
    *,
    task_ids: tuple[str, ...],
    from_step: str | None,
    changes: dict[str, Any],
    force: bool,
    every: bool,
    job: str | None,
    step: str | None,
    outcome: str | None,
    as_json: bool,
) -> None:
    """Put tasks back into the queues they came from; each goes on at the step that failed.

    \b
      gotasks fatal retry ID --set 'email="ann@example.org"'
      gotasks fatal retry --all --job checkout --outcome failed
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    chosen = _chosen(app, task_ids, Filters(job, step, outcome), every=every)

    def act(task_id: str) -> dict[str, Any]:
        queue = app.fatal.retry(task_id, from_step=from_step, changes=changes, force=force)
        if not as_json:
            click.echo(f"{task_id} → {queue}")
        return {"id": task_id, "queue": queue}

    _each(chosen, act, "retried", as_json=as_json)


@fatal.command(epilog=exits.EPILOG)
@click.argument("task_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All tasks, or all that the filters let through.")
@_filters
@yes_option
@json_option
@on_broker()
def drop(
    app: App,
    *,
    task_ids: tuple[str, ...],
    every: bool,
    job: str | None,
    step: str | None,
    outcome: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove tasks from the fatal queue for good."""
    chosen = _chosen(app, task_ids, Filters(job, step, outcome), every=every)
    if chosen:
        what = f"task {chosen[0]}" if len(chosen) == 1 else f"{len(chosen)} tasks"
        confirm(f"Drop {what} for good?", yes=yes)

    def act(task_id: str) -> dict[str, Any]:
        app.fatal.drop(task_id)
        if not as_json:
            click.echo(f"{task_id} dropped")
        return {"id": task_id}

    _each(chosen, act, "dropped", as_json=as_json)


def _chosen(app: App, task_ids: tuple[str, ...], filters: Filters, *, every: bool) -> list[str]:
    """The ids that a command is about."""
    if bool(task_ids) == every:
        raise click.UsageError(
            "name tasks by their ids, or say --all (perhaps with --job, --step, --outcome)"
        )
    if not every:
        if filters:
            raise click.UsageError(
                "--job, --step and --outcome choose among --all; with ids they have no use"
            )
        return list(dict.fromkeys(task_ids))
    chosen = [each.id for each in _matching(app, filters, None)]
    if not chosen:
        note("nothing there")
    return chosen


def _matching(app: App, filters: Filters, after: str | None) -> Iterator[FatalTask]:
    """The tasks that the filters let through, page by page."""
    seen: set[str] = set()
    while True:
        page = app.fatal.list(_PAGE, after)
        fresh = [each for each in page if each.id not in seen]
        yield from (each for each in fresh if filters.match(app, each))
        if len(page) < _PAGE or not fresh:
            return
        seen.update(each.id for each in fresh)
        after = page[-1].id


def _each(chosen: list[str], act: Callable[[str], dict[str, Any]], done: str, *, as_json: bool) -> None:
    """Do it for each task. One that refuses doesn't stop the others; a broker that fails does."""
    results: list[dict[str, Any]] = []
    errors: list[tuple[str, GotasksError]] = []
    for task_id in chosen:
        try:
            results.append(act(task_id))
        except GotasksError as error:
            errors.append((task_id, error))
            if isinstance(error, BrokerError) and not isinstance(error, (Rejected, Unsupported)):
                break
    if as_json:
        failed = [{"id": task_id, "error": str(error)} for task_id, error in errors]
        print_json({done: results, "failed": failed})
    if not errors:
        return
    if len(chosen) == 1:
        raise errors[0][1]
    for _, problem in errors:
        complain(str(problem))
    left = len(chosen) - len(results) - len(errors)
    note(f"{len(results)} {done}, {len(errors)} not" + (f", {left} not tried" if left else ""))
    codes = {exits.exit_code(problem) for _, problem in errors}
    if exits.UNAVAILABLE in codes:
        raise click.exceptions.Exit(exits.UNAVAILABLE)
    raise click.exceptions.Exit(codes.pop() if len(codes) == 1 else exits.FAILED)
