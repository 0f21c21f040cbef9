"""Ends: how tasks stand, by what the broker says; what it can't say is taken from the history, or looked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from gotasks import App, codec
from gotasks.broker import Capability, State, Write
from gotasks.conformance.kit.account import End, Expected
from gotasks.conformance.kit.history import Reader
from gotasks.task import Failure

_BATCH = 500

#: For which a look into a queue holds what it finds. Seconds.
_HOLD = 30.0


def at_rest(app: App, queue: str) -> bool:
    """Whether nothing of this queue is ready, scheduled or held, as far as the server can say."""
    stats = app.stats(queue)
    return not (stats.ready or stats.scheduled or stats.leased)


def ends(
    app: App,
    history: Reader,
    expected: Mapping[str, Expected],
    ids: Collection[str] | None,
    queues: Sequence[str],
) -> dict[str, End]:
    """The state of each of these tasks (None: of all expected ones, and of strangers in the fatal queue)."""
    wanted = list(expected if ids is None else ids)
    buried = _fatal_copies(app)
    if Capability.RECORDS in app.capabilities:
        found = _by_records(app, wanted)
    else:
        found = _by_looking(app, history, expected, [each for each in wanted if each not in buried], queues)
    for task_id, (end, count) in buried.items():
        known = found.get(task_id)
        if known is not None and known.status not in ("", "fatal"):
            found[task_id] = _times(known, count + 1)
        elif task_id in wanted or ids is None:
            found[task_id] = _times(end, count)
    return found


def _times(end: End, copies: int) -> End:
    return End(status=end.status, args=end.args, outcome=end.outcome, step=end.step, copies=copies)


def _fatal_copies(app: App) -> dict[str, tuple[End, int]]:
    """What lies in the fatal queue, and how often. A copy that a move left there counts as one with the other."""
    bodies: dict[str, bytes] = {}
    counts: Counter[str] = Counter()
    after = None
    while page := app.fatal.list(limit=_BATCH, after=after):
        for each in page:
            bodies[each.id] = each.body
            counts[each.id] += 1
        if len(page) < _BATCH or page[-1].id == after:
            break
        after = page[-1].id
    atomic = Capability.ATOMIC_MOVE in app.capabilities
    return {task: (_buried(body), counts[task] if atomic else 1) for task, body in bodies.items()}


def _buried(body: bytes) -> End:
    try:
        task = codec.decode(body)
    except codec.Unreadable:
        return End(status="fatal", outcome="unreadable")
    log = task.result_log
    outcome, step = (log.outcome.value, log.step) if isinstance(log, Failure) else ("", "")
    return End(status="fatal", args=codec.decode_args(task.args_map), outcome=outcome, step=step)


def _by_records(app: App, wanted: Sequence[str]) -> dict[str, End]:
    found = {}
    for start in range(0, len(wanted), _BATCH):
        part = wanted[start : start + _BATCH]
        records = app.dispatch.get(part)
        for task_id in part:
            record = records.get(task_id)
            if record is None:
                found[task_id] = End(status="")
            elif record.state is not State.DONE and record.queue == app.fatal_queue:
                found[task_id] = _buried(record.body)
            else:
                args = codec.decode_args(codec.decode(record.body).args_map)
                found[task_id] = End(status=record.state.value, args=args)
    return found


def _by_looking(
    app: App, history: Reader, expected: Mapping[str, Expected], wanted: Sequence[str], queues: Sequence[str]
) -> dict[str, End]:
    """Without RECORDS: a task is done if its last step has ended and it is nowhere any more."""
    waiting = {task_id for queue in queues if not at_rest(app, queue) for task_id in inside(app, queue)}
    ended = {(each.task, each.step) for each in history.find("end")}
    found = {}
    for task_id in wanted:
        last = len(expected[task_id].steps) - 1
        status = "ready" if task_id in waiting else "done" if (task_id, last) in ended else ""
        found[task_id] = End(status=status)
    return found


def inside(app: App, queue: str) -> list[str]:
    """The ids of what is ready in a queue. For when all workers are gone: what is held for a look counts no death."""
    broker = app.dispatch.broker
    if Capability.BROWSE in broker.capabilities:
        return [each.id for each in broker.browse(queue, state=State.READY, limit=_BATCH)]
    leases = []
    hold = min(_HOLD, broker.limits.max_lease or _HOLD)
    while more := broker.acquire(queue, limit=broker.limits.max_batch, wait=0, lease_for=hold):
        leases += more
    for lease in reversed(leases) if broker.limits.returned == "front" else leases:
        broker.release([Write(lease=lease, body=lease.envelope.body, seq=1)])
    return [lease.envelope.id for lease in leases]
