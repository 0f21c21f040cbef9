"""What one worker process does on Redis, beside a bare loop of redis-py `SET` in the same run.

    python benchmarks/redis_worker.py redis://127.0.0.1:6379/0

Rates as medians of `--rounds` interleaved rounds, each with its own `SET` loop before and after; the latency from
enqueue to start on an idle worker; the CPU time of an idle worker. Default settings: leases, checkpoints, records.
It works in a namespace of its own and removes it.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
import uuid
from collections.abc import Callable

import redis

from gotasks import App, ArgsMap

SET_CALLS = 5000


def noop(args: ArgsMap) -> ArgsMap:
    """Do nothing."""
    return args


def second(args: ArgsMap) -> ArgsMap:
    """Do nothing, second."""
    return args


def third(args: ArgsMap) -> ArgsMap:
    """Do nothing, third."""
    return args


def set_rate(client: redis.Redis, key: str) -> float:
    """`SET` calls a second, one after the other."""
    began = time.perf_counter()
    for _ in range(SET_CALLS):
        client.set(key, b"x" * 100)
    return SET_CALLS / (time.perf_counter() - began)


def drain_rate(app: App, queue: str, tasks: int) -> float:
    """Tasks a second that one worker with 10 slots takes from a queue that is full."""
    worker = app.worker(queue)
    began = time.perf_counter()
    worker.start()
    while (stats := app.stats(queue)).ready or stats.leased:
        time.sleep(0.01)
    seconds = time.perf_counter() - began
    worker.stop()
    return tasks / seconds


def latencies(app: App, started: threading.Event, moment: list[float], count: int = 200) -> list[float]:
    """Milliseconds from `enqueue` to the handler's first line, on a worker that waits."""
    found = []
    queue = app.queue("idle")
    with app.worker("idle"):
        for _ in range(count):
            time.sleep(0.02)
            started.clear()
            began = time.perf_counter()
            queue.enqueue("stamp", {})
            started.wait(5)
            found.append((moment[0] - began) * 1000)
    return sorted(found)


def idle_share(app: App, seconds: float) -> float:
    """Per cent of a core that an idle worker needs."""
    with app.worker("idle"):
        time.sleep(1)
        cpu, began = time.process_time(), time.perf_counter()
        time.sleep(seconds)
        return (time.process_time() - cpu) / (time.perf_counter() - began) * 100


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", nargs="?", default="redis://127.0.0.1:6379/0")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    namespace = f"bench-{uuid.uuid4().hex[:12]}"
    app = App(f"{options.url}?namespace={namespace}", task_ttl=60)
    client = redis.Redis.from_url(options.url)
    started, moment = threading.Event(), [0.0]

    def stamp(_: ArgsMap) -> None:
        moment[0] = time.perf_counter()
        started.set()

    app.register("one", noop)
    app.register("three", noop, second, third)
    app.register("stamp", stamp)
    for name in ("one", "three", "idle"):
        app.queue(name)
    try:
        measure(app, client, namespace, options.rounds)
        times = latencies(app, started, moment)
        print(f"enqueue to start, idle worker: p50 {times[100]:.2f} ms, p99 {times[197]:.2f} ms")
        print(f"idle worker: {idle_share(app, 10):.2f} % of a core")
    finally:
        app.close()
        for key in client.scan_iter(match=f"{{{namespace}}}:*", count=1000):
            client.delete(key)


def measure(app: App, client: redis.Redis, namespace: str, rounds: int) -> None:
    """The rates, and their ratios to the `SET` loop."""
    results: dict[str, list[float]] = {"SET loop": []}

    def note(name: str, rate: Callable[[], float]) -> None:
        before = set_rate(client, f"{{{namespace}}}:set")
        value = rate()
        after = set_rate(client, f"{{{namespace}}}:set")
        results["SET loop"] += [before, after]
        results.setdefault(name, []).append(value)
        results.setdefault(f"{name} / SET", []).append(value / ((before + after) / 2))

    def single() -> float:
        began = time.perf_counter()
        for number in range(2000):
            app.queue("one").enqueue("one", {"number": number})
        return 2000 / (time.perf_counter() - began)

    def full(name: str, tasks: int, steps: int) -> float:
        app.queue(name).enqueue_many(name, [{"number": number} for number in range(tasks)])
        return drain_rate(app, name, tasks) * steps

    for _ in range(rounds):
        note("one-step tasks/s", lambda: full("one", 20_000, 1))
        note("steps/s of three-step tasks", lambda: full("three", 5_000, 3))
        note("single enqueues/s", single)
        app.dispatch.purge("one")
    for name, values in results.items():
        shown = "{:.2f} ({:.2f} to {:.2f})" if name.endswith("/ SET") else "{:,.0f} ({:,.0f} to {:,.0f})"
        print(f"{name}: {shown.format(statistics.median(values), min(values), max(values))}")


if __name__ == "__main__":
    main()
