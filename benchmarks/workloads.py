"""The workloads: each does its work on a stand and returns figures by name."""

from __future__ import annotations

import statistics
import time

from benchmarks.ours import OURS
from benchmarks.processes import measurable
from benchmarks.protocol import NAP, Unsupported
from benchmarks.stand import Stand
from benchmarks.worker import Worker
from benchmarks.workload import Figure, Workload, drained, scaled

#: Tasks that a worker has done before its latency or memory is looked at.
WARM = 20


def _enqueue(stand: Stand, tasks: int) -> dict[str, float]:
    """A producer alone, one task a call."""
    return {"enqueue": tasks / stand.enqueue("one", tasks)}


def _bulk(stand: Stand, tasks: int) -> dict[str, float]:
    """A producer alone, batches of 1,000."""
    return {"bulk": tasks / stand.bulk("one", tasks)}


def _drain(stand: Stand, tasks: int) -> dict[str, float]:
    return {"drain": drained(stand, "one", tasks, 1)}


def _drain2(stand: Stand, tasks: int) -> dict[str, float]:
    return {"drain-2": drained(stand, "one", tasks, 2)}


def _chains(stand: Stand, tasks: int) -> dict[str, float]:
    return {"chains": drained(stand, "chain", tasks, 1, steps=3)}


def _latency(stand: Stand, tasks: int) -> dict[str, float]:
    """From the call of `enqueue` to the handler's first line; the worker has nothing else to do."""
    with stand.worker() as worker:
        _warm_up(stand, worker)
        began = stand.pace("one", tasks, first=WARM, gap=0.02, wait=True)
    return _quantiles(stand, began, "latency")


def _half_load(stand: Stand, tasks: int) -> dict[str, float]:
    """The same, of tasks that each take 0.1 s of a slot and come so often that half of the slots are taken."""
    gap = NAP / (stand.peer.concurrency / 2)
    with stand.worker() as worker:
        _warm_up(stand, worker)
        began = stand.pace("nap", tasks, first=WARM, gap=gap, wait=False)
        stand.until_started(worker, stand.record.cells)
    return _quantiles(stand, began, "half-load")


def _memory(stand: Stand, tasks: int) -> dict[str, float]:
    """Resident memory and CPU of a worker with nothing to do, and the most memory that it had when it has drained."""
    if not measurable():
        raise Unsupported("the memory of other processes is only read on Linux")
    with stand.worker() as worker:
        _warm_up(stand, worker)
        time.sleep(1)
        began, cpu = time.perf_counter(), worker.cpu()
        time.sleep(5)
        share = (worker.cpu() - cpu) / (time.perf_counter() - began) * 100
        idle = worker.memory()
        stand.fill("one", tasks, first=WARM)
        stand.until_started(worker, stand.record.cells)
        return {"rss-idle": idle, "rss-load": worker.peak(), "idle-cpu": share}


def _warm_up(stand: Stand, worker: Worker) -> None:
    """Let the worker start the first WARM tasks, one after the other."""
    stand.pace("one", WARM, first=0, gap=0.01, wait=True)
    stand.until_started(worker, WARM)


def _quantiles(stand: Stand, began: list[float], name: str) -> dict[str, float]:
    """Milliseconds: the median and the 99th percentile."""
    waited = [(stand.record.at(WARM + number) - at) * 1000 for number, at in enumerate(began)]
    return {f"{name}-p50": statistics.median(waited), f"{name}-p99": _p99(waited)}


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


def _sample(tasks: int, share: float) -> int:
    """How many latencies to take: 200, fewer of slow peers or in short runs."""
    return min(200, max(50, round(tasks * share / 25)))


#: Done by all peers.
_COMPARED: tuple[Workload, ...] = (
    Workload(
        "enqueue", (Figure("enqueue", "enqueue, one by one /s"),), lambda n, _: max(50, n // 5), _enqueue
    ),
    Workload("bulk", (Figure("bulk", "enqueue, bulk /s"),), lambda n, _: n, _bulk),
    Workload("drain", (Figure("drain", "drain, 1 worker /s"),), scaled(1), _drain),
    Workload("drain-2", (Figure("drain-2", "drain, 2 workers /s"),), scaled(1), _drain2),
    Workload("chains", (Figure("chains", "3-step chains, steps/s"),), scaled(0.25), _chains, steps=3),
    Workload(
        "latency",
        (
            Figure("latency-p50", "idle → start p50 ms", 2, lower=True),
            Figure("latency-p99", "p99 ms", 2, lower=True),
        ),
        _sample,
        _latency,
        extra=WARM,
    ),
    Workload(
        "half-load",
        (
            Figure("half-load-p50", "half load → start p50 ms", 2, lower=True),
            Figure("half-load-p99", "p99 ms", 2, lower=True),
        ),
        _sample,
        _half_load,
        extra=WARM,
    ),
    Workload(
        "memory",
        (
            Figure("rss-idle", "RSS idle MiB", 1, lower=True),
            Figure("rss-load", "RSS highest MiB", 1, lower=True),
            Figure("idle-cpu", "idle CPU %", 2, lower=True),
        ),
        scaled(0.25),
        _memory,
        extra=WARM,
    ),
)

WORKLOADS: tuple[Workload, ...] = (*_COMPARED, *OURS)
