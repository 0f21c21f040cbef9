"""Between the workers and Redis the network fails, and nothing is lost, doubled, or left in doubt without need."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gotasks import App, dispatch
from gotasks.conformance.kit.account import Expected
from gotasks.conformance.kit.process import until
from gotasks.conformance.kit.proxy import Proxy
from gotasks.conformance.kit.traffic import BOTH, Direction
from gotasks.errors import BrokerUnavailable
from gotasks.task import Status
from tests.chaos import netjobs
from tests.chaos.netcrew import Crew, Verdict, settled
from tests.resp import Reply, Resp

if TYPE_CHECKING:
    from typing_extensions import Self

#: The shortest socket timeout that the backend allows, so that a black hole is noticed soon. Seconds.
TIMEOUT = 2


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    """A proxy in front of the server of `redis_url`."""
    with before(redis_url) as proxy:
        yield proxy


@contextmanager
def before(url: str) -> Iterator[Proxy]:
    parts = urlsplit(url)
    if parts.scheme != "redis":
        pytest.skip(f"the proxy can't stand before a {parts.scheme}:// server")
    with Proxy(parts.hostname or "127.0.0.1", parts.port or 6379) as proxy:
        yield proxy


def through(proxy: Proxy, url: str) -> str:
    return f"{proxy.through(url)}{'&' if '?' in url else '?'}timeout={TIMEOUT}"


# -- under load -----------------------------------------------------------------------------------


class Feed:
    """Enqueues chains through the proxy for as long as the block lasts, and keeps some waiting."""

    def __init__(self, url: str, control: App) -> None:
        self.expected: dict[str, Expected] = {}
        self.unknown: dict[str, Expected] = {}
        self._app = netjobs.build()
        self._app.use_broker(url)
        self._control = control
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._main, name="feed")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()
        self._app.close()

    def _main(self) -> None:
        queue, args = self._app.queue(netjobs.QUEUE), netjobs.first_args(20)
        wanted = Expected.of(self._app.jobs["chain"], args)
        while not self._over.is_set():
            if self._control.queue_len(netjobs.QUEUE) > 100:
                self._over.wait(0.02)
                continue
            try:
                stored = queue.enqueue_many("chain", [args] * 20)
            except BrokerUnavailable as error:
                self.unknown.update(dict.fromkeys(error.ids, wanted))
            else:
                self.expected.update({task.id: wanted for task in stored})


def replies_cut(proxy: Proxy) -> None:
    """Ten times within a second, the reply that comes next is cut in the middle."""
    for count in range(10):
        proxy.cut_after("replies", count)
        time.sleep(0.1)  # how long this fault lasts
    proxy.disarm()


def lasting(fault: Any, seconds: float) -> None:
    with fault:
        time.sleep(seconds)  # how long this fault lasts


@pytest.mark.timeout(120)
def test_cuts_under_load(
    redis_url: str, proxy: Proxy, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    url = through(proxy, redis_url)
    control = netjobs.build()
    control.use_broker(redis_url)
    faults: list[Callable[[], None]] = [
        lambda: lasting(proxy.refusing(), 1),
        lambda: lasting(proxy.black_hole("replies"), 1),
        lambda: lasting(proxy.refusing(), 3),
        lambda: replies_cut(proxy),
        lambda: lasting(proxy.black_hole(), 2),
        lambda: lasting(proxy.holding(), 1.5),
        lambda: lasting(proxy.black_hole("replies"), 3),
    ]
    with Crew(tmp_path, url, count=2, limit=8, lease=10) as crew, Feed(url, control) as feed:
        for fault in faults:
            # Each fault meets workers in the middle of their work, as does the end of the last one.
            _goes_on(crew)
            fault()
        _goes_on(crew)
        feed.__exit__()
        settled(control, timeout=40)
        verdict = Verdict(control, crew.history, feed.expected, feed.unknown)
        repeated = len(crew.history.find("lost"))
        assert crew.output.count("the broker is back") >= len(crew.processes), crew.output
    figures(str(verdict))
    verdict.check()
    figures(f"settling writes whose repeat was answered 'lost': {repeated}; lines of log: {crew.lines}")
    control.close()


def _goes_on(crew: Crew) -> None:
    """Every worker finishes some more handlers."""
    crew.history.update()
    since = len(crew.history.entries)

    def enough() -> bool:
        crew.history.update()
        ended = [each.pid for each in crew.history.entries[since:] if each.what == "end"]
        return all(ended.count(process.pid) >= 100 for process in crew.processes)

    until(enough, "both workers at work", timeout=15)


# -- an idle worker -------------------------------------------------------------------------------


def test_an_idle_worker_is_cut_twenty_times(
    redis_url: str, proxy: Proxy, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    control = netjobs.build()
    control.use_broker(redis_url)
    queue = control.queue(netjobs.QUEUE)
    with Crew(tmp_path, through(proxy, redis_url), count=1) as crew:
        pid = crew.processes[0].pid
        queue.enqueue("single", netjobs.first_args(1)).wait(timeout=15)
        settled(control, timeout=5)
        sockets, highest = _sockets(pid), 0
        for _ in range(20):
            end = time.monotonic() + 0.25
            while time.monotonic() < end:
                highest = max(highest, proxy.open)
                time.sleep(0.01)  # between two looks
            proxy.cut()
        began = time.monotonic()
        queue.enqueue("single", netjobs.first_args(1)).wait(timeout=10)
        took = time.monotonic() - began
        after = _sockets(pid)
        figures(
            f"consumed {took:.3f} s after the last cut; at most {highest} connections, {proxy.accepted} in all"
        )
        figures(f"sockets of the worker: {sockets} before, {after} after; lines of log {crew.lines}")
        assert took < 2
        assert proxy.accepted >= 20  # each cut met a worker that was connected
        assert highest <= 4  # queues + 3
        assert proxy.open <= 4
        assert after is None or sockets is None or after <= sockets + 3
        assert crew.lines[0] < 30, crew.output
    control.close()


def test_connections_that_die_in_silence(
    redis_url: str, proxy: Proxy, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    """All connections of a worker are dead, and nobody tells it: no running handler loses its lease by that."""
    control = netjobs.build()
    control.use_broker(redis_url)
    queue, single = control.queue(netjobs.QUEUE), control.jobs["single"]
    long, short = netjobs.first_args(10_000), netjobs.first_args(1)
    with Crew(tmp_path, through(proxy, redis_url), count=1, lease=6) as crew:
        tasks = {queue.enqueue(single, long).id: Expected.of(single, long)}
        until(crew.working, "the start of the long task")
        took = []
        for _ in range(4):  # each at another phase of the heart
            assert proxy.silence() >= 1
            began = time.monotonic()
            late = queue.enqueue(single, short)
            late.wait(timeout=15)
            took.append(round(time.monotonic() - began, 2))
            tasks[late.id] = Expected.of(single, short)
        settled(control, timeout=15)
        verdict = Verdict(control, crew.history, tasks)
        figures(f"new tasks were done {took} s after their worker's connections had died")
        assert max(took) < TIMEOUT + 1.5
        verdict.check()
        assert verdict.done == len(tasks)
    control.close()


def test_a_dead_connection_costs_no_lease(redis_url: str, proxy: Proxy, tmp_path: Path) -> None:
    """The heart meets it when two thirds of the lease are left, and by default a call waits 5 s for its reply."""
    control = netjobs.build()
    control.use_broker(redis_url)
    queue, single = control.queue(netjobs.QUEUE), control.jobs["single"]
    long = netjobs.first_args(13_000)
    (namespace,) = parse_qs(urlsplit(redis_url).query)["namespace"]
    with Crew(tmp_path, proxy.through(redis_url), count=1, lease=8) as crew, Resp(redis_url) as eyes:
        task = queue.enqueue(single, long)
        until(crew.working, "the start of the task")

        def ends() -> Reply:
            return eyes.call("ZSCORE", f"{{{namespace}}}:leased:{netjobs.QUEUE}", task.id)

        first = ends()
        until(lambda: ends() != first, "the first beat of the heart")
        assert proxy.silence() >= 1  # so it is the next beat that meets it
        settled(control, timeout=30)
        verdict = Verdict(control, crew.history, {task.id: Expected.of(single, long)})
        verdict.check()
        assert verdict.done == 1
    control.close()


def _sockets(pid: int) -> int | None:
    """How many sockets a process has open; None where that can't be seen."""
    descriptors = Path(f"/proc/{pid}/fd")
    if not descriptors.exists():
        return None
    found = 0
    for each in descriptors.iterdir():
        try:
            found += str(each.readlink()).startswith("socket:")
        except FileNotFoundError:  # closed a moment ago
            continue
    return found


# -- no answer at all -----------------------------------------------------------------------------


@pytest.mark.parametrize("directions, stored", [(BOTH, False), (("replies",), True)])
def test_a_black_hole_ends_an_enqueue_in_time(
    redis_url: str,
    proxy: Proxy,
    directions: tuple[Direction, ...],
    stored: bool,
    figures: Callable[[str], None],
) -> None:
    app = netjobs.build()
    app.use_broker(through(proxy, redis_url))
    queue = app.queue(netjobs.QUEUE)
    warm = queue.enqueue("single", netjobs.first_args(1))
    began = time.monotonic()
    with proxy.black_hole(*directions), pytest.raises(BrokerUnavailable) as caught:
        queue.enqueue("single", netjobs.first_args(1))
    took = time.monotonic() - began
    figures(f"raised after {took:.2f} s: {caught.value}")
    assert took < dispatch.PATIENCE + TIMEOUT + 1
    (task_id,) = caught.value.ids
    assert task_id != warm.id
    # The same broker serves on, and says what became of the task.
    until(lambda: warm.status() is Status.READY, "an answer")
    known = app.dispatch.get([task_id])
    assert (task_id in known) is stored
    assert app.queue_len(netjobs.QUEUE) == 1 + stored
    app.close()
