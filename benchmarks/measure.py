"""Measure: carry out one step of the plan."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.catalogue import CLIENTS, Peer
from benchmarks.plan import Step
from benchmarks.protocol import ScriptFailed, Unsupported, ask
from benchmarks.results import CEILINGS, Result
from benchmarks.stand import Stand
from benchmarks.venvs import Venvs
from benchmarks.worker import WorkerFailed
from benchmarks.workload import Workload


class Bench:
    """The servers by URL, the venvs, and how many tasks a drain has."""

    def __init__(self, venvs: Venvs, urls: Mapping[str, str], tasks: int) -> None:
        self._venvs = venvs
        self._urls = urls
        self._tasks = tasks

    def reset(self, server: str, peer: Peer | None = None) -> tuple[str, str]:
        """Make the place on a server empty. Returns its URL and the server's version. Raises ScriptFailed."""
        return self._place("reset", server, peer)

    def remove(self, server: str) -> None:
        """Leave nothing behind on a server. Raises ScriptFailed."""
        self._place("remove", server, None)

    def do(self, step: Step) -> Result:
        """Measure; what goes wrong is in the result."""
        peer = step.peer.name if step.peer else CEILINGS
        workload = step.workload.name if step.workload else CEILINGS
        try:
            url, _ = self.reset(step.server, step.peer)
            if step.peer is None or step.workload is None:
                values = self._ceilings(step.server, url)
                return Result(step.round, step.server, peer, workload, values)
            values, repeats = self._measure(step.peer, step.workload, url)
            return Result(step.round, step.server, peer, workload, values, repeats=repeats)
        except Unsupported as error:
            return Result(step.round, step.server, peer, workload, unsupported=str(error))
        except (ScriptFailed, WorkerFailed, ValueError, RuntimeError) as error:
            return Result(step.round, step.server, peer, workload, error=str(error))
        finally:
            if step.peer and step.peer.leaves:
                self._place("remove", step.server, step.peer)

    def _measure(self, peer: Peer, workload: Workload, url: str) -> tuple[dict[str, float], int]:
        """The figures, and how many starts weren't the first of their step."""
        tasks = workload.tasks(self._tasks, peer.share)
        with tempfile.TemporaryDirectory(prefix="gotasks-bench-") as folder:
            cells = workload.steps * tasks + workload.extra
            stand = Stand(peer, self._venvs.python(peer.packages), url, Path(folder), cells)
            try:
                stand.prepare()
                return workload.measure(stand, tasks), stand.record.repeats()
            finally:
                stand.close()

    def _ceilings(self, server: str, url: str) -> dict[str, float]:
        python = self._venvs.python(CLIENTS)
        answer = ask(python, f"benchmarks.ceilings.{server}", {"url": url}, {"do": "measure"}, timeout=300)
        return {name: float(value) for name, value in answer.items()}

    def _place(self, what: str, server: str, peer: Peer | None) -> tuple[str, str]:
        command = {"do": what, "url": self._urls[server], **(peer.leaves if peer else {})}
        python = self._venvs.python(CLIENTS)
        answer = ask(python, f"benchmarks.places.{server}", {}, command, timeout=60)
        return str(answer["url"]), str(answer["version"])
