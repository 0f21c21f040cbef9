"""How tasks stand, by what the broker says."""

from __future__ import annotations

from collections.abc import Collection

from gotasks import App, codec
from gotasks.broker import State
from gotasks.task import Failure
from tests.chaos.history import End

_BATCH = 500


def ends(app: App, ids: Collection[str]) -> dict[str, End]:
    """The state of each of these tasks; of one that the broker doesn't know, an empty one."""
    found = {}
    wanted = list(ids)
    for start in range(0, len(wanted), _BATCH):
        part = wanted[start : start + _BATCH]
        records = app.dispatch.get(part)
        for task_id in part:
            record = records.get(task_id)
            if record is None:
                found[task_id] = End(status="")
                continue
            task = codec.decode(record.body)
            args = codec.decode_args(task.args_map)
            if record.state is not State.DONE and record.queue == app.fatal_queue:
                log = task.result_log
                assert isinstance(log, Failure), log
                found[task_id] = End(status="fatal", args=args, outcome=log.outcome.value, step=log.step)
            else:
                found[task_id] = End(status=record.state.value, args=args)
    return found


def at_rest(app: App, queue: str) -> bool:
    """Whether nothing of this queue is ready, scheduled or held."""
    stats = app.stats(queue)
    return not (stats.ready or stats.scheduled or stats.leased)
