"""Stand: one peer in its venv, on an empty place, ready to be measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import processes
from benchmarks.catalogue import Peer
from benchmarks.protocol import ScriptFailed, Unsupported, ask, environment
from benchmarks.record import Record
from benchmarks.worker import Worker

_PORTS = {"redis": 6379, "postgresql": 5432, "amqp": 5672}

#: Seconds without a further start after which a worker is taken for stuck.
STUCK = 60.0


class Stand:
    """What a workload can do with its peer. One measurement, then `close`."""

    def __init__(self, peer: Peer, python: Path, url: str, folder: Path, cells: int) -> None:
        """`folder`: an empty one, for logs and for the record of `cells` starts."""
        self.peer = peer
        self._python = python
        self._folder = folder
        self._url = url
        path = folder / "record"
        self.record = Record.create(path, cells)
        self._setup: Mapping[str, Any] = {
            "url": url,
            "record": str(path),
            "cells": cells,
            "concurrency": peer.concurrency,
            "options": peer.options,
        }

    def close(self) -> None:
        """Let go of the record."""
        self.record.close()

    def prepare(self) -> None:
        """Make what the peer needs once, such as a schema."""
        self._ask("prepare")

    def enqueue(self, job: str, tasks: int, *, first: int = 0) -> float:
        """Seconds that a producer needs for `tasks`, numbered from `first` on, one by one."""
        return float(self._ask("enqueue", job=job, tasks=tasks, first=first)["seconds"])

    def bulk(self, job: str, tasks: int, *, first: int = 0, batch: int = 1000, carry: int = 0) -> float:
        """The same by batches, of tasks that carry so many bytes more. Raises Unsupported."""
        words = {"job": job, "tasks": tasks, "first": first, "batch": batch, "carry": carry}
        return float(self._ask("bulk", **words)["seconds"])

    def crowd(self, what: str, size: int, samples: int) -> dict[str, float]:
        """What tasks cost in a place that is full of something, beside one that isn't; see the kit."""
        answer = self._ask("crowd", kind=what, size=size, samples=samples)
        return {name: float(value) for name, value in answer.items()}

    def fill(self, job: str, tasks: int, *, first: int = 0) -> None:
        """Enqueue `tasks` in the fastest way that the peer has."""
        try:
            self.bulk(job, tasks, first=first)
        except Unsupported:
            self.enqueue(job, tasks, first=first)

    def pace(self, job: str, tasks: int, *, first: int, gap: float, wait: bool) -> list[float]:
        """When each of `tasks` was enqueued, `gap` seconds apart; see the kit."""
        answer = self._ask("pace", job=job, tasks=tasks, first=first, gap=gap, wait=wait)
        return [float(moment) for moment in answer["began"]]

    @contextmanager
    def worker(self, processes: int = 1) -> Iterator[Worker]:
        """Worker processes; they are stopped when the `with` block is left."""
        programs = self._python.parent
        commands = [
            [str(programs / program), *words]
            for program, *words in self._ask("worker", processes=processes)["commands"]
        ]
        env = environment(self._setup)
        env["PATH"] = f"{programs}:{env.get('PATH', '')}"
        worker = Worker(commands, env, self._folder)
        try:
            yield worker
        finally:
            worker.stop()

    def server_cpu(self) -> float | None:
        """Seconds of CPU time that the server has used, with all its processes; None where it can't be looked at."""
        parts = urlsplit(self._url)
        found = processes.tree(processes.listeners(parts.port or _PORTS.get(parts.scheme, 0)))
        return sum(map(processes.cpu, found)) if found else None

    def until_started(self, worker: Worker, cells: int) -> None:
        """Wait until the first `cells` of the record are marked. Raises ScriptFailed when nothing moves."""
        self.until(worker, lambda: self.record.started() >= cells)

    def until(self, worker: Worker, done: Callable[[], bool]) -> None:
        """Wait for `done`, while tasks are started."""
        before, moved = -1, time.monotonic()
        while not done():
            time.sleep(0.02)
            if self.record.started() != before:
                before, moved = self.record.started(), time.monotonic()
            elif time.monotonic() > moved + STUCK:
                raise ScriptFailed(
                    f"{self.record.marked()} of {self.record.cells} started, and none for {STUCK:.0f} s: "
                    f"{worker.log()}"
                )
            worker.check()

    def settle(self, timeout: float = 30.0) -> None:
        """Wait until the server holds no task that isn't done. Raises ScriptFailed if it still does."""
        left = self._ask("settle", timeout=timeout)["pending"]
        if left:
            raise ScriptFailed(f"{left} tasks are still stored {timeout:.0f} s after the last one started")

    def _ask(self, what: str, **words: Any) -> dict[str, Any]:
        command = {"do": what, "script": self.peer.script, **words}
        return ask(self._python, "benchmarks.peers", self._setup, command, timeout=600)
