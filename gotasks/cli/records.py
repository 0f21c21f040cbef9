"""Records: how tasks look in JSON and on a screen. The JSON names are stable."""

from __future__ import annotations

from typing import Any

import msgspec

from gotasks import codec
from gotasks.app import App
from gotasks.cli.output import compact
from gotasks.fatal import FatalTask
from gotasks.task import Failure, Status, Task


def steps_of(app: App, task: Task) -> tuple[str, ...] | None:
    """The task's chain; None where neither the record nor the app knows it."""
    if task.steps is not None:
        return task.steps
    job = app.jobs.get(task.job_name)
    return job.step_names if job is not None else None


def next_step(app: App, task: Task) -> str | None:
    """The step that is next, or that failed; None when all are done or the chain isn't known."""
    steps = steps_of(app, task) or ()
    return steps[task.current_handler_index] if 0 <= task.current_handler_index < len(steps) else None


def task_json(app: App, task: Task) -> dict[str, Any]:
    """What a record says."""
    steps = steps_of(app, task)
    return {
        "id": task.task_id,
        "queue": task.queue_name,
        "job": task.job_name,
        "step": next_step(app, task),
        "steps": None if steps is None else list(steps),
        "completed": task.current_handler_index,
        "args": codec.decode_args(task.args_map),
        "original_args": codec.decode_args(task.original_args_map),
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "result_log": _log_json(task.result_log),
    }


def status_json(app: App, status: Status, task: Task) -> dict[str, Any]:
    """A record and the state that the task is in."""
    fields = task_json(app, task)
    return {"id": fields.pop("id"), "state": status.value, **fields}


def fatal_json(app: App, found: FatalTask, *, whole: bool) -> dict[str, Any]:
    """A task in the fatal queue; its args and traceback only if `whole`."""
    failure, task = found.failure, found.task
    fields = {
        "id": found.id,
        "queue": task.queue_name if task is not None else None,
        "job": task.job_name or None if task is not None else None,
        "step": step_of(app, found),
        "outcome": failure.outcome.value,
        "in_doubt": failure.in_doubt,
        "error": failure.error,
        "at": failure.at or None,
    }
    if whole:
        known = task_json(app, task) if task is not None else {}
        fields["traceback"] = failure.traceback
        fields["moving"] = task.moving if task is not None else None
        for name in ("steps", "completed", "args", "original_args", "created_at", "updated_at"):
            fields[name] = known.get(name)
        fields["raw"] = task.raw if task is not None else None
    return fields


def step_of(app: App, found: FatalTask) -> str | None:
    """The step at which a task failed; None where that isn't known."""
    if found.failure.step:
        return found.failure.step
    return next_step(app, found.task) if found.task is not None else None


def chain(fields: dict[str, Any]) -> str:
    """The chain with the next step in brackets: `charge → [receipt]`."""
    steps: list[str] = fields["steps"] or []
    return " → ".join(
        f"[{name}]" if index == fields["completed"] else name for index, name in enumerate(steps)
    )


def screen(fields: dict[str, Any]) -> list[tuple[str, object]]:
    """The same for people: without what is empty, args maps as JSON."""
    rows: list[tuple[str, object]] = []
    for name, value in fields.items():
        if name == "steps":
            rows.append((name, chain(fields)))
        elif name == "result_log" and isinstance(value, dict):
            rows += [(key, each) for key, each in value.items() if key not in ("step", "in_doubt")]
        elif name == "original_args" and value == fields.get("args"):
            continue
        else:
            rows.append((name, compact(value) if isinstance(value, (dict, list)) else value))
    return [
        (name, value)
        for name, value in rows
        if value not in (None, "", False) and name not in ("completed", "moving")
    ]


def _log_json(log: Failure | str | None) -> Any:
    return {"in_doubt": log.in_doubt, **msgspec.to_builtins(log)} if isinstance(log, Failure) else log
