"""A call to Redis is cut at every place: after each part of its request, and after each part of its reply.

Whatever was cut, the state is wholly the old one or wholly the new one, and repeating the call gives the answer that
the contract promises (`gotasks/broker.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from gotasks import App
from gotasks.broker import BrokerURL, Envelope, Write
from gotasks.errors import BrokerUnavailable
from gotasks.task import new_task_id
from gotasks_redis import RedisBroker
from tests.chaos import netjobs
from tests.chaos.processes import until
from tests.chaos.proxy import BOTH, Direction, Proxy
from tests.redis_server import PrivateRedis
from tests.resp import Reply, Resp

if TYPE_CHECKING:
    from typing_extensions import Self

QUEUE = "sweep"

State = dict[bytes, Reply]


class Bench:
    """A private server, a broker that reaches it, one that reaches it through a proxy, and a look at every key."""

    def __init__(self, server: PrivateRedis) -> None:
        self._stack = ExitStack()
        self.proxy = self._stack.enter_context(Proxy("127.0.0.1", server.port))
        self.eyes = self._stack.enter_context(Resp(server.url))
        self.direct = RedisBroker.from_url(BrokerURL(server.url))
        self.cut = RedisBroker.from_url(BrokerURL(self.proxy.through(server.url)))
        self._stack.callback(self.direct.close)
        self._stack.callback(self.cut.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def state(self) -> State:
        """All that the server stores."""
        keys = self.eyes.call("KEYS", "*")
        assert isinstance(keys, list)
        return {key: self._content(key) for key in keys if isinstance(key, bytes)}

    def _content(self, key: bytes) -> Reply:
        kind = self.eyes.call("TYPE", key)
        if kind == b"hash":
            flat = self.eyes.call("HGETALL", key)
            assert isinstance(flat, list)
            return sorted(zip(flat[::2], flat[1::2], strict=True), key=str)  # type: ignore[arg-type]
        if kind == b"list":
            return self.eyes.call("LRANGE", key, "0", "-1")
        if kind == b"zset":
            return self.eyes.call("ZRANGE", key, "0", "-1", "WITHSCORES")
        raise AssertionError(f"{key!r} is a {kind!r}")

    def connect(self) -> None:
        """Have the broker behind the proxy connected, so that what is counted next is one call alone."""

        def answered() -> bool:
            try:
                self.cut.stats(QUEUE)
            except BrokerUnavailable:  # an idle connection that was cut is noticed by the next call
                return False
            return True

        until(answered, "a connection through the proxy", pause=0.001)

    def connected(self) -> int:
        """How many clients the server has."""
        clients = self.eyes.call("CLIENT", "LIST")
        assert isinstance(clients, bytes)
        return clients.count(b"\n")


def places(state: State) -> Counter[bytes]:
    """In how many lists and sets of the server each id is."""
    found: Counter[bytes] = Counter()
    for key, content in state.items():
        if b":task:" not in key and b":wake:" not in key:
            assert isinstance(content, list)
            step = 1 if b":ready:" in key else 2
            found.update(each for each in content[::step] if isinstance(each, bytes))
    return found


@dataclass
class Seen:
    """How often a cut call had been carried out, how often not, and how often it was answered all the same."""

    old: int = 0
    new: int = 0
    answered: int = 0


def sweep(
    bench: Bench,
    direction: Direction,
    call: Callable[[], object],
    tried: Callable[[bool], None],
    *,
    stride: int = 1,
) -> None:
    """Cut `call` after so many of its bytes, from none on, until it comes through; `tried(answered)` after each.

    Each place is `stride` bytes after the one before, but none of the last bytes is left out.
    """
    call()  # with this one the server learns the script
    tried(True)
    bench.connect()
    meter = bench.proxy.cut_after(direction, 1 << 40)
    call()
    bench.proxy.disarm()
    tried(True)
    total = (1 << 40) - meter.left
    for count in [*range(0, total - 8, stride), *range(max(0, total - 8), total + 50)]:
        bench.connect()
        trap = bench.proxy.cut_after(direction, count)
        try:
            call()
        except BrokerUnavailable:
            answered = False
        else:
            answered = True
        bench.proxy.disarm()
        if trap.sprung:
            # The server has read all that it will ever get of this call.
            until(lambda: bench.connected() <= 2, "the end of the connection, on the server", pause=0.001)
        tried(answered)
        if not trap.sprung:
            assert answered
            return
    raise AssertionError(f"a call of {total} bytes should have come through")


# -- writes under a lease -------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """One of the three writes, in one of its forms."""

    name: str
    call: Callable[[RedisBroker, Sequence[Write]], frozenset[str]]
    form: Callable[[Write], Write] = lambda write: write
    ends: bool = True  #: the lease
    copies: int = 1  #: of each task, in lists and sets, afterwards


OPERATIONS = [
    Operation("checkpoint", lambda broker, writes: broker.checkpoint(writes), ends=False),
    Operation("ack", lambda broker, writes: broker.ack(writes, keep_for=1000), copies=0),
    Operation("ack-keeping-nothing", lambda broker, writes: broker.ack(writes, keep_for=0), copies=0),
    Operation("release", lambda broker, writes: broker.release(writes)),
    Operation(
        "bury", lambda broker, writes: broker.release(writes), lambda write: _with(write, queue="fatal")
    ),
    Operation(
        "delay", lambda broker, writes: broker.release(writes), lambda write: _with(write, delay=1000.0)
    ),
]


def _with(write: Write, *, delay: float = 0.0, queue: str | None = None) -> Write:
    return Write(lease=write.lease, body=write.body, seq=write.seq, delay=delay, queue=queue)


@pytest.mark.parametrize("direction", BOTH)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_write_that_is_cut_anywhere(
    private_redis: Callable[..., PrivateRedis],
    operation: Operation,
    direction: Direction,
    figures: Callable[[str], None],
) -> None:
    seen = Seen()
    with Bench(private_redis()) as bench:
        writes: list[Write] = []
        before: State = {}

        def prepare() -> None:
            nonlocal before
            bench.eyes.call("FLUSHALL")
            envelopes = [Envelope(id=new_task_id(), queue=QUEUE, body=b"old") for _ in range(2)]
            bench.direct.enqueue(envelopes)
            leases = bench.direct.acquire(QUEUE, limit=2, wait=0, lease_for=1000)
            writes[:] = [operation.form(Write(lease=lease, body=b"new", seq=1)) for lease in leases]
            assert len(writes) == 2
            before = bench.state()

        def tried(answered: bool) -> None:
            middle = bench.state()
            bench.connect()
            lost = operation.call(bench.cut, writes)  # the repeat, unchanged
            after = bench.state()
            assert middle in (before, after)
            done = middle == after
            assert done or not answered
            assert lost == ({write.lease.receipt for write in writes} if done and operation.ends else set())
            copies = places(after)
            assert [copies[write.lease.envelope.id.encode()] for write in writes] == [operation.copies] * 2
            assert b"old" not in str(after).encode()
            seen.old += not done
            seen.new += done
            seen.answered += answered
            prepare()

        prepare()
        sweep(bench, direction, lambda: operation.call(bench.cut, writes), tried)
    figures(str(seen))
    _check(seen, direction)


def _check(seen: Seen, direction: Direction, *, whole: int = 1) -> None:
    """`whole`: how many commands make up the call."""
    if direction == "requests":
        # Answered: twice in the beginning and once in the end. Carried out: also when cut after its last byte.
        assert seen.old > 100
        assert seen.new == 4
        assert seen.answered == 3
    else:
        assert (seen.old > 0) is (whole > 1)
        assert seen.new >= 7
        assert seen.answered == 4


# -- enqueue --------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["script-known", "script-unknown"])
@pytest.mark.parametrize("direction", BOTH)
def test_an_enqueue_that_is_cut_anywhere(
    private_redis: Callable[..., PrivateRedis],
    direction: Direction,
    known: bool,
    figures: Callable[[str], None],
) -> None:
    """The broker's own call: it stored all or nothing, and sent again it stores what isn't there.

    On a server that has forgotten the script it takes two commands, the second one with the whole script.
    """
    seen = Seen()
    with Bench(private_redis()) as bench:
        envelopes: list[Envelope] = []

        def prepare() -> None:
            bench.eyes.call("FLUSHALL")
            if not known:
                bench.eyes.call("SCRIPT", "FLUSH")
                bench.connect()  # its own script is known again
            envelopes[:] = [Envelope(id=new_task_id(), queue=QUEUE, body=b"body") for _ in range(2)]

        def tried(answered: bool) -> None:
            middle = bench.state()
            bench.connect()
            there = bench.cut.enqueue(envelopes)
            after = bench.state()
            assert middle in ({}, after)
            done = middle == after
            assert done or not answered
            assert there == ({each.id: each.id for each in envelopes} if done else {})
            assert places(after) == {each.id.encode(): 1 for each in envelopes}
            seen.old += not done
            seen.new += done
            seen.answered += answered
            prepare()

        prepare()
        stride = 1 if direction == "replies" or known else 16
        sweep(bench, direction, lambda: bench.cut.enqueue(envelopes), tried, stride=stride)
    figures(str(seen))
    _check(seen, direction, whole=1 if known else 2)


@pytest.mark.parametrize("direction", BOTH)
@pytest.mark.parametrize("repeats", [True, False], ids=["repeats", "raises"])
def test_a_program_whose_enqueue_is_cut_anywhere(
    private_redis: Callable[..., PrivateRedis],
    direction: Direction,
    repeats: bool,
    figures: Callable[[str], None],
) -> None:
    """`Queue.enqueue`: it returned, so the task is there once; it raised, so it's there once or not, and is named."""
    outcomes: Counter[str] = Counter()
    with Bench(private_redis()) as bench:
        # Where ids aren't known for long, an enqueue may not be repeated.
        app = App(bench.cut, task_ttl=1000 if repeats else 10)
        app.register("single", netjobs.work)
        queue = app.queue(QUEUE)
        task_id = ""

        def enqueue() -> None:
            nonlocal task_id
            try:
                task_id = queue.enqueue("single", netjobs.first_args(1)).id
            except BrokerUnavailable as error:
                (task_id,) = error.ids
                raise

        def tried(answered: bool) -> None:
            state = bench.state()
            found = places(state)
            assert set(found) <= {task_id.encode()}
            assert len([key for key in state if b":task:" in key]) == len(found)
            count = found[task_id.encode()]
            assert count == 1 if answered else count <= 1
            outcomes[f"{'returned' if answered else 'raised'}, stored {count}"] += 1
            bench.eyes.call("FLUSHALL")

        # A repeat comes after a pause, so there are fewer of them.
        stride = 12 if direction == "requests" and repeats else 1
        sweep(bench, direction, enqueue, tried, stride=stride)
    figures(str(dict(outcomes)))
    if repeats:
        assert set(outcomes) == {"returned, stored 1"}
    else:
        assert outcomes["raised, stored 1"] >= 1
        assert outcomes["raised, stored 0"] >= 50 or direction == "replies"
