"""Crew: worker processes of one row: real `gotasks worker` processes that are stopped, continued and killed.

    crew = Crew.of(it)
    task = crew.enqueue("errand-reentrant")
    victim = crew.start(killpoint="in_step:1")      # kit.killpoints
    victim.killed()
    crew.start(lease=LONG)
    crew.settled()                                  # all has ended
    expect_equal(crew.problems(), [], "…")          # kit.account

All run `kit.jobs`, write one history, and end with the crew, or with this process, however that ends.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gotasks.broker import Broker, Capability
from gotasks.conformance.expect import Nonconformance
from gotasks.conformance.kit import ends, jobs, killpoints, lifeline
from gotasks.conformance.kit.account import Account, End, Expected
from gotasks.conformance.kit.history import Reader, Writer
from gotasks.conformance.kit.process import PATIENCE, Process, environment, until
from gotasks.conformance.kit.served import describe
from gotasks.worker.worker import Worker

if TYPE_CHECKING:
    from typing_extensions import Self

    from gotasks.conformance.scene import Scene

#: The app of all these processes.
APP = f"{jobs.__name__}:app"


class Crew:
    """Workers on one broker, with one history, and the app that enqueues for them. Use it as a context manager.

    Attributes:
        app: all the jobs, in this process, on a broker of its own.
        history: what the handlers did, here and there.
        expected: all that was enqueued by `enqueue`, and how it must end.
        queues: those that are declared; the first is where tasks go that say nothing else.
    """

    def __init__(
        self,
        directory: Path,
        url: str,
        queues: Sequence[str],
        *,
        fatal: str = "fatal",
        broker_class: type[Broker] | None = None,
        lease: float = 2.0,
        max_crashes: int = 3,
    ) -> None:
        self.directory = directory
        self.queues = list(queues)
        self._lease = lease
        self._spec = "" if broker_class is None else describe(broker_class)
        self._url = url
        file = str(directory / "history.jsonl")
        self._own = {
            jobs.HISTORY: file,
            jobs.CLASS: self._spec,
            jobs.QUEUES: ",".join(queues),
            jobs.FATAL: fatal,
            jobs.MAX_CRASHES: str(max_crashes),
        }
        self.history = Reader(Path(file))
        self._writer = Writer(file)
        self.app = jobs.build(self._writer, fatal_queue=fatal)
        jobs.declare(self.app, queues, max_crashes)
        self.app.events.listen(self._writer.listen)
        self.expected: dict[str, Expected] = {}
        self.processes: list[Process] = []
        self._seen, self._seen_at = -1, 0.0  #: how long the history was, and since when it has been so

    @classmethod
    def of(cls, it: Scene, *queues: str, max_crashes: int = 3) -> Crew:
        """A crew on the broker of this scene, for these queues (none named: the scene's); it ends with the row.

        Its leases are long enough that a worker which is merely slow keeps them.
        """
        crew = cls(
            it.directory,
            it.url,
            queues or [it.queue],
            fatal=it.fatal,
            broker_class=it.adapter.broker_class,
            lease=max(2 * it.lease, 1.0),
            max_crashes=max_crashes,
        )
        crew.app.use_broker(it.client())
        it.enter(crew)
        return crew

    def __enter__(self) -> Self:
        if self.app._override is None:  # noqa: SLF001 - else whoever made it has chosen
            self.app.use_broker(jobs.opened(self._url, self._spec))
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self.processes:
            process.close()
        self.app.close()
        self.history.close()
        self._writer.close()

    # -- processes ------------------------------------------------------------------------------------

    def start(
        self,
        *queues: str,
        limit: int = 4,
        lease: float | None = None,
        grace: float = 30.0,
        processes: int = 1,
        killpoint: str | None = None,
        url: str | None = None,
    ) -> Process:
        """Start one more worker, or a supervisor of several, for these queues (none named: all). Doesn't wait."""
        own = dict(self._own)
        if killpoint is not None:
            own[killpoints.VARIABLE] = killpoint
        longest = self.app.dispatch.limits.max_lease or math.inf
        words = ["worker", APP, f"--lease={min(lease or self._lease, longest)}", f"--grace={grace}"]
        words.append(f"--processes={processes}")
        for queue in queues or self.queues:
            words += ["-q", f"{queue}:{limit}"]
        log = self.directory / f"worker-{len(self.processes)}.log"
        process = Process(self._command(*words), environment(url or self._url, **own), self.directory, log)
        self.processes.append(process)
        return process

    def here(self, *, limit: int = 4) -> Worker:
        """A worker in this process, for all queues, whatever the shell says about workers: `with crew.here(): …`."""
        options = {
            name: replace(self.app.queues[name].options, max_limit=limit, lease=self._lease)
            for name in self.queues
        }
        return Worker(self.app, options, grace=10)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command of gotasks for this app."""
        own = environment(self._url, **self._own)
        del own[lifeline.VARIABLE]
        return subprocess.run(
            self._command(*words, "--app", APP),
            env=own,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def output(self) -> str:
        """What all workers have said, the end of it."""
        return "\n".join(f"worker {each.pid} said:\n{each.output[-2000:]}" for each in self.processes)

    @staticmethod
    def _command(*words: str) -> list[str]:
        return [sys.executable, "-m", "gotasks", *words]

    # -- tasks ----------------------------------------------------------------------------------------

    def enqueue(self, job: str, *, queue: str | None = None, **args: Any) -> str:
        """Enqueue a task; its id."""
        return self.enqueue_many(job, 1, queue=queue, **args)[0]

    def enqueue_many(self, job: str, count: int, *, queue: str | None = None, **args: Any) -> list[str]:
        """Enqueue that many; their ids."""
        maps = [{"trail": [], "n": number, **args} for number in range(count)]
        handles = self.app.queue(queue or self.queues[0]).enqueue_many(self.app.jobs[job], maps)
        for handle, each in zip(handles, maps, strict=True):
            self.expected[handle.id] = Expected.of(self.app.jobs[job], each)
        return [handle.id for handle in handles]

    def gate(self, name: str = "gate") -> Path:
        """A gate for the handlers that have one (`gate=str(gate)`); it is opened by `gate.touch()`."""
        return self.directory / name

    # -- what became of them --------------------------------------------------------------------------

    def until(self, condition: Callable[[Reader], object], what: str, *, timeout: float = PATIENCE) -> None:
        """Return as soon as this holds for the history. Raises Nonconformance."""
        self._until(lambda: condition(self.history.update()), what, timeout=timeout)

    def at_rest(self) -> bool:
        """Whether nothing is ready, scheduled or held in any queue, as far as the server can say."""
        if not all(ends.at_rest(self.app, queue) for queue in self.queues):
            return False
        if all(self.app.stats(queue).leased is not None for queue in self.queues):
            return True
        if Capability.RECORDS in self.app.capabilities:
            return all(end.status in ("done", "fatal") for end in self.ends().values())
        # Neither counts nor records: a task whose last step has ended may still be held, and come back.
        return self._quiet() and not any(ends.inside(self.app, queue) for queue in self.queues)

    def _quiet(self) -> bool:
        """Whether for as long as a dead worker's tasks may stay away nothing has happened."""
        seen, now = len(self.history.update().entries), time.monotonic()
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        return now - self._seen_at > self._longest_silence

    @property
    def _longest_silence(self) -> float:
        return self._lease + self.app.dispatch.limits.recovery + 2.0

    def settled(self, *, timeout: float = PATIENCE) -> None:
        """Return when all has ended. Raises Nonconformance."""
        self._until(
            self.at_rest,
            "the end of all tasks: nothing left in their queues, ready, scheduled or held",
            timeout=timeout + self._longest_silence,
        )

    def _until(self, condition: Callable[[], object], what: str, *, timeout: float) -> None:
        try:
            until(condition, what, timeout=timeout + self.app.dispatch.limits.recovery)
        except Nonconformance as error:
            said = "; ".join(
                f"worker {each.pid} ({each.state}): {each.last_words}" for each in self.processes
            )
            raise Nonconformance(f"{error}. {said}") from None

    def ends(self, ids: Collection[str] | None = None) -> dict[str, End]:
        """How these tasks stand (none named: all), by what the broker says; where it can't, by the history."""
        return ends.ends(self.app, self.history.update(), self.expected, ids, self.queues)

    def account(self, *, resumed: Mapping[str, int] | None = None) -> Account:
        """All that happened, against all that was enqueued."""
        found = self.ends()
        return Account(self.history.update().entries, self.expected, found, resumed or {})

    def problems(self, *, resumed: Mapping[str, int] | None = None) -> list[str]:
        """What is wrong with all that happened; see `Account`."""
        return self.account(resumed=resumed).problems()

    def starts(self, task: str) -> list[int]:
        """The steps of this task that were started, in that order."""
        return self.history.update().steps(task)
