"""A Redis server that is full: what is new is refused, what is there goes on, and nothing is lost or left in doubt.

A full server refuses a script whose first write may take memory. Were that true of the writes under a lease, nothing
could ever leave a server that its own backlog has filled.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from gotasks import App, ArgsMap
from gotasks.conformance.kit.process import until
from gotasks.errors import Rejected, TaskNotFound
from gotasks.events import BrokerDown, Event
from gotasks.job import step
from gotasks.task import Status
from tests.chaos.netcrew import settled
from tests.chaos.netjobs import QUEUE
from tests.redis_server import PrivateRedis
from tests.resp import Reply, Resp, RespError

MEGABYTE = 1024 * 1024

#: Of the workers here, in seconds.
LEASE = 1
FILLER = "filler"


class Full:
    """A server with a small `maxmemory`, which can be filled and emptied."""

    def __init__(self, server: PrivateRedis) -> None:
        self.url = server.url
        self.resp = Resp(server.url)
        self.resp.call("CONFIG", "SET", "maxmemory-policy", "noeviction")

    def fill(self) -> None:
        """Fill it, and by so much that what clients' buffers take and give doesn't matter."""
        # Made on the server: a client's buffer, which it frees a little later, would count as well.
        self.resp.call("SETRANGE", FILLER, str(8 * MEGABYTE), "x")
        self.resp.call("CONFIG", "SET", "maxmemory", str(self.used() - MEGABYTE))
        with pytest.raises(RespError, match="OOM"):
            self.resp.call("SET", "more", "x")

    def empty(self) -> None:
        """Make room."""
        self.resp.call("DEL", FILLER)

    def used(self) -> int:
        info = self.resp.call("INFO", "memory")
        assert isinstance(info, bytes)
        (line,) = (each for each in info.splitlines() if each.startswith(b"used_memory:"))
        return int(line.partition(b":")[2])

    def keys(self) -> list[bytes]:
        """The keys of the broker."""
        reply = self.resp.call("KEYS", "{gt}:*")
        assert isinstance(reply, list)
        return sorted(each for each in reply if isinstance(each, bytes))

    def state(self) -> dict[bytes, Reply]:
        """All that the broker stores, byte for byte."""
        return {each: self.resp.call("DUMP", each) for each in self.keys()}


@pytest.fixture
def full(private_redis: Callable[..., PrivateRedis]) -> Iterator[Full]:
    full = Full(private_redis())
    yield full
    full.resp.close()


class Chain:
    """The app of these tests: handlers that wait to be let go on, and count their starts."""

    def __init__(self, url: str, *, lease: float = LEASE) -> None:
        self.app = App(url)
        self.app.queue(QUEUE, max_limit=4, lease=lease)
        self.app.register("one", step(self.handle, name="one"))
        self.app.register("three", *(step(self.handle, name=f"step-{number}") for number in range(3)))
        self.app.register("failing", step(self.fail, name="failing"))
        self.go_on = threading.Event()
        self.starts: Counter[tuple[str, int]] = Counter()
        self.down: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.app.events.listen(self._listen)

    def handle(self, args: ArgsMap) -> ArgsMap:
        with self._lock:
            self.starts[args["name"], args["step"]] += 1
        assert self.go_on.wait(15)
        return {**args, "step": args["step"] + 1}

    def fail(self, args: ArgsMap) -> ArgsMap:
        self.handle(args)
        raise RuntimeError("as always")

    def _listen(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, BrokerDown):
                self.down[event.what.split()[0]] += 1


@pytest.fixture
def chain(full: Full) -> Iterator[Chain]:
    chain = Chain(full.url)
    yield chain
    chain.go_on.set()
    chain.app.close()


def test_what_is_new_is_refused(full: Full, chain: Chain) -> None:
    queue = chain.app.queue(QUEUE)
    first = queue.enqueue("one", {"name": "first", "step": 0})
    before = full.state()
    full.fill()
    with pytest.raises(Rejected, match="memory") as caught:
        queue.enqueue("one", {"name": "refused", "step": 0}, delay=60)
    with pytest.raises(Rejected, match="memory") as caught:
        queue.enqueue("one", {"name": "refused", "step": 0})
    (task_id,) = caught.value.ids
    with pytest.raises(TaskNotFound):
        chain.app.task(task_id).status()
    # More than one call's worth: none of them is stored.
    with pytest.raises(Rejected) as caught:
        queue.enqueue_many("one", [{"name": "refused", "step": 0}] * 2500)
    assert len(caught.value.ids) >= chain.app.dispatch.limits.max_batch
    assert chain.app.dispatch.get(list(caught.value.ids)) == {}
    assert full.state() == before
    assert chain.app.queue_len(QUEUE) == 1
    # What it refused can be sent again when there is room.
    full.empty()
    assert queue.enqueue("one", {"name": "again", "step": 0}, task_id=task_id).id == task_id
    chain.go_on.set()
    with chain.app.worker(QUEUE):
        assert first.wait(timeout=10)["step"] == 1
        assert chain.app.task(task_id).wait(timeout=10)["name"] == "again"


@pytest.mark.parametrize("job, steps", [("one", 1), ("three", 3)])
def test_what_is_under_way_goes_on(full: Full, chain: Chain, job: str, steps: int) -> None:
    """Held for longer than a lease and then finished, all on a full server: no step twice, nothing in doubt."""
    tasks = [chain.app.queue(QUEUE).enqueue(job, {"name": f"task-{each}", "step": 0}) for each in range(4)]
    with chain.app.worker(QUEUE):
        until(lambda: len(chain.starts) == 4, "four handlers at work")
        full.fill()
        end = time.monotonic() + 2 * LEASE
        until(lambda: time.monotonic() > end, "the end of two leases")
        chain.go_on.set()
        for task in tasks:
            assert task.wait(timeout=10)["step"] == steps
    _once(chain, 4 * steps)
    assert chain.app.fatal.list() == []
    assert not chain.down


def test_a_failure_reaches_the_fatal_queue(full: Full, chain: Chain) -> None:
    """Also where the server is full, and with its reason."""
    task = chain.app.queue(QUEUE).enqueue("failing", {"name": "failing", "step": 0})
    with chain.app.worker(QUEUE):
        until(lambda: len(chain.starts) == 1, "the handler at work")
        full.fill()
        chain.go_on.set()
        until(lambda: task.status() is Status.FATAL, "the task in the fatal queue", timeout=10)
    (found,) = chain.app.fatal.list()
    assert "as always" in found.failure.error
    assert not found.failure.in_doubt
    _once(chain, 1)


@pytest.mark.parametrize(
    "job, steps, kind", [("one", 1, "ack"), ("three", 3, "checkpoint"), ("failing", 1, "release")]
)
def test_refused_writes_are_repeated(full: Full, job: str, steps: int, kind: str) -> None:
    """A server that takes no write at all for a while (too few replicas): each is repeated until it is taken."""
    chain = Chain(full.url, lease=30)
    tasks = [chain.app.queue(QUEUE).enqueue(job, {"name": f"task-{each}", "step": 0}) for each in range(4)]
    with chain.app.worker(QUEUE):
        until(lambda: len(chain.starts) == 4, "four handlers at work")
        full.resp.call("CONFIG", "SET", "min-replicas-to-write", "1")
        with pytest.raises(RespError, match="NOREPLICAS"):
            full.resp.call("SET", "more", "x")
        chain.go_on.set()
        until(lambda: chain.down[kind] >= 5, f"five failures of the {kind}")
        assert {task.status() for task in tasks} == {Status.RUNNING}
        _once(chain, 4)
        full.resp.call("CONFIG", "SET", "min-replicas-to-write", "0")
        ended = Status.FATAL if job == "failing" else Status.DONE
        until(lambda: {task.status() for task in tasks} == {ended}, f"four tasks that are {ended.value}")
    _once(chain, 4 * steps)
    assert not any(each.failure.in_doubt for each in chain.app.fatal.list())
    chain.app.close()


def test_a_backlog_that_fills_the_server_is_worked_off(full: Full, chain: Chain) -> None:
    """Nobody makes room: the tasks themselves are what fills it. They are done, and then forgotten."""
    queue = chain.app.queue(QUEUE)
    full.resp.call("CONFIG", "SET", "maxmemory", str(full.used() + 2 * MEGABYTE))
    stored = 0
    with pytest.raises(Rejected):
        while True:
            args = {"step": 0, "load": "x" * 500}
            stored += len(queue.enqueue_many("one", [{**args, "name": stored + each} for each in range(50)]))
    assert stored >= 500
    chain.go_on.set()
    with chain.app.worker(QUEUE):
        settled(chain.app, timeout=20)
    _once(chain, stored)
    assert chain.app.fatal.list() == []
    assert not chain.down


def _once(chain: Chain, steps: int) -> None:
    """So many steps were started, and each of them once."""
    assert len(chain.starts) == steps
    assert set(chain.starts.values()) == {1}


@pytest.mark.parametrize(
    "policy, warned", [("allkeys-lru", True), ("volatile-ttl", True), ("noeviction", False)]
)
def test_eviction_is_warned_of(
    private_redis: Callable[..., PrivateRedis],
    caplog: pytest.LogCaptureFixture,
    policy: str,
    warned: bool,
) -> None:
    """A worker says at its start that this server may throw tasks away."""
    app = Chain(private_redis(maxmemory="16mb", maxmemory_policy=policy).url).app
    with caplog.at_level(logging.WARNING, logger="gotasks"), app.worker(QUEUE):
        pass
    said = [each.getMessage() for each in caplog.records if "maxmemory-policy" in each.getMessage()]
    assert bool(said) is warned
    assert all(policy in each and "noeviction" in each for each in said)
    app.close()
