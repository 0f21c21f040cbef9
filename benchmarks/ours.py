"""Ours: what is measured of gotasks alone: how our own costs grow, and what would take a slow peer for ever."""

from __future__ import annotations

from functools import partial

from benchmarks.record import rate
from benchmarks.stand import Stand
from benchmarks.workload import Figure, Workload, drained, fill, scaled

_PEERS = ("gotasks",)
_STORES = ("sqlite", "postgres", "redis")

#: Bytes of args, by the name of the workload.
_SIZES = {"args-100": 100, "args-10k": 10_000, "args-500k": 500_000}

#: What a place is crowded with: its size for --tasks 20,000, and what is said of it.
_CROWDS = {
    "backlog": (1_000_000, "tasks that wait"),
    "records": (1_000_000, "records of finished tasks"),
    "queues": (1_000, "queues, of which 10 are served"),
}

#: How often ten tasks are taken.
_SAMPLES = 400


def _args(stand: Stand, tasks: int, *, name: str) -> dict[str, float]:
    """A drain of tasks with larger args."""
    return {name: drained(stand, "one", tasks, 1, carry=_SIZES[name])}


def _burn(stand: Stand, tasks: int, *, name: str, job: str) -> dict[str, float]:
    """CPU-bound handlers: drains by one worker process and by two, and whose the CPU time of the latter was."""
    slots = stand.peer.concurrency
    one = drained(stand, job, tasks, 1, burst=slots)
    fill(stand, job, tasks, first=tasks)
    with stand.worker(2) as worker:
        stand.until_started(worker, tasks + 1)  # what it took to begin is not what is asked
        workers, server = worker.cpu(), stand.server_cpu()
        stand.until_started(worker, 2 * tasks)
        stand.settle()
        workers, after = worker.cpu() - workers, stand.server_cpu()
    two = rate(stand.record.starts(range(tasks, 2 * tasks)), 2, burst=2 * slots)
    found = {f"{name}-1": one, f"{name}-2": two, f"{name}-times": two / one}
    if server is not None and after is not None:
        found[f"{name}-server"] = (after - server) / (after - server + workers) * 100
    return found


def _crowd(stand: Stand, tasks: int, *, name: str) -> dict[str, float]:
    """What a task costs in a crowded place, beside one that isn't."""
    part = tasks / 20_000
    size = max(20, round(_CROWDS[name][0] * part))
    found = stand.crowd(name, size, max(20, round(_SAMPLES * min(1.0, part))))
    return {f"{name}-size": size, **{f"{name}-{what}": value for what, value in found.items()}}


OURS: tuple[Workload, ...] = (
    *(
        Workload(
            name,
            (Figure(name, f"drain, args of {said} /s"),),
            scaled(part),
            partial(_args, name=name),
            peers=_PEERS,
        )
        for name, said, part in (
            ("args-100", "100 B", 0.25),
            ("args-10k", "10 kB", 0.1),
            ("args-500k", "500 kB", 0.005),
        )
    ),
    *(
        Workload(
            name,
            (
                Figure(f"{name}-1", f"handlers of {said} CPU time: 1 process /s"),
                Figure(f"{name}-2", f"handlers of {said} CPU time: 2 processes /s"),
                Figure(f"{name}-times", f"handlers of {said} CPU time: the latter are faster, times", 2),
                Figure(
                    f"{name}-server",
                    f"handlers of {said} CPU time: of all CPU time the server's %",
                    1,
                    lower=True,
                ),
            ),
            scaled(part),
            partial(_burn, name=name, job=job),
            steps=2,
            peers=_PEERS,
        )
        for name, job, said, part in (("cpu-20", "burn-20", "20 ms", 0.015), ("cpu-1", "burn-1", "1 ms", 0.1))
    ),
    *(
        Workload(
            name,
            (
                Figure(f"{name}-size", f"{said}: so many"),
                Figure(f"{name}-many", f"{said}: µs a task, acquired and acked by 10", 1, lower=True),
                Figure(f"{name}-few", f"{said}: µs a task in an empty place beside it", 1, lower=True),
                Figure(f"{name}-times", f"{said}: the former is dearer, times", 2, lower=True),
            ),
            lambda tasks, _: tasks,
            partial(_crowd, name=name),
            peers=_PEERS,
            servers=_STORES,
            once=True,
        )
        for name, (_, said) in _CROWDS.items()
    ),
)
