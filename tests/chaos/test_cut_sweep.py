"""A call to Redis is cut at every place, and every key of the server is looked at.

What a broker's user can see after a cut is shown by the rows of the conformance suite (`rows/sweeps.py`). Here is what
only its keys tell: all of them are as they were, or all are as after the whole call; also where a server has forgotten
the script. And what `Queue.enqueue` makes of a cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from gotasks import App
from gotasks.broker import BrokerURL, Envelope, Write
from gotasks.conformance.kit.proxy import Proxy
from gotasks.conformance.kit.sweep import Cut, sweep
from gotasks.task import new_task_id
from gotasks_redis import RedisBroker
from tests.chaos import netjobs
from tests.redis_server import PrivateRedis
from tests.resp import Reply, Resp

if TYPE_CHECKING:
    from typing_extensions import Self

QUEUE = "sweep"

#: More than there are bytes in any of these calls: each is cut everywhere.
EVERYWHERE = 10_000

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

    def ready(self) -> object:
        """A call through the proxy that changes nothing."""
        return self.cut.stats(QUEUE)


def places(state: State) -> Counter[bytes]:
    """In how many lists and sets of the server each id is."""
    found: Counter[bytes] = Counter()
    for key, content in state.items():
        if b":task:" not in key and b":wake:" not in key:
            assert isinstance(content, list)
            step = 1 if b":ready:" in key else 2
            found.update(each for each in content[::step] if isinstance(each, bytes))
    return found


class Seen:
    """How often a cut call had been carried out, how often not, and how often it was answered all the same."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.replies: Counter[str] = Counter()

    def note(self, cut: Cut[Any, Any], *, done: bool) -> None:
        """Count one try."""
        assert done or not cut.answered
        counter = self.requests if cut.direction == "requests" else self.replies
        counter["new" if done else "old"] += 1
        counter["answered"] += cut.answered

    def check(self, *, whole: int = 1) -> None:
        """`whole`: how many commands make up the call."""
        # Answered: when measured, and in the end. Carried out: also when cut after its last byte.
        assert self.requests["old"] > 100
        assert (self.requests["new"], self.requests["answered"]) == (3, 2)
        assert (self.replies["old"] > 0) is (whole > 1)
        assert self.replies["new"] >= 6
        assert self.replies["answered"] == 3  # also when cut after its last byte

    def __str__(self) -> str:
        return f"requests {dict(self.requests)}, replies {dict(self.replies)}"


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


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_write_that_is_cut_anywhere(
    private_redis: Callable[..., PrivateRedis], operation: Operation, figures: Callable[[str], None]
) -> None:
    seen = Seen()
    with Bench(private_redis()) as bench:
        before: State = {}

        def prepare() -> list[Write]:
            nonlocal before
            bench.eyes.call("FLUSHALL")
            envelopes = [Envelope(id=new_task_id(), queue=QUEUE, body=b"old") for _ in range(2)]
            bench.direct.enqueue(envelopes)
            leases = bench.direct.acquire(QUEUE, limit=2, wait=0, lease_for=1000)
            assert len(leases) == 2
            before = bench.state()
            return [operation.form(Write(lease=lease, body=b"new", seq=1)) for lease in leases]

        operation.call(bench.direct, prepare())  # with this one the server learns the script
        for cut in sweep(
            bench.proxy,
            lambda writes: operation.call(bench.cut, writes),
            prepare=prepare,
            ready=bench.ready,
            most=EVERYWHERE,
        ):
            middle = bench.state()
            lost = operation.call(bench.direct, cut.given)  # the repeat, unchanged
            after = bench.state()
            assert middle in (before, after), cut
            ended = middle == after and operation.ends
            assert lost == ({each.lease.receipt for each in cut.given} if ended else set())
            copies = places(after)
            assert [copies[each.lease.envelope.id.encode()] for each in cut.given] == [operation.copies] * 2
            assert b"old" not in str(after).encode()
            seen.note(cut, done=middle == after)
    figures(str(seen))
    seen.check()


# -- enqueue --------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["script-known", "script-unknown"])
def test_an_enqueue_that_is_cut_anywhere(
    private_redis: Callable[..., PrivateRedis], known: bool, figures: Callable[[str], None]
) -> None:
    """The broker's own call: it stored all or nothing, and sent again it stores what isn't there.

    On a server that has forgotten the script it takes two commands, the second one with the whole script.
    """
    seen = Seen()
    with Bench(private_redis()) as bench:

        def prepare() -> list[Envelope]:
            bench.eyes.call("FLUSHALL")
            if not known:
                bench.eyes.call("SCRIPT", "FLUSH")
                bench.ready()  # its own script is known again
            return [Envelope(id=new_task_id(), queue=QUEUE, body=b"body") for _ in range(2)]

        bench.direct.enqueue(prepare())
        for cut in sweep(
            bench.proxy,
            bench.cut.enqueue,
            prepare=prepare,
            ready=bench.ready,
            most=EVERYWHERE if known else 250,
        ):
            middle = bench.state()
            there = bench.direct.enqueue(cut.given)
            after = bench.state()
            assert middle in ({}, after), cut
            assert there == ({each.id: each.id for each in cut.given} if middle else {})
            assert places(after) == {each.id.encode(): 1 for each in cut.given}
            seen.note(cut, done=middle == after)
    figures(str(seen))
    seen.check(whole=1 if known else 2)


@pytest.mark.parametrize("repeats", [True, False], ids=["repeats", "raises"])
def test_a_program_whose_enqueue_is_cut_anywhere(
    private_redis: Callable[..., PrivateRedis], repeats: bool, figures: Callable[[str], None]
) -> None:
    """`Queue.enqueue`: it returned, so the task is there once; it raised, so it's there once or not, and is named."""
    outcomes: Counter[str] = Counter()
    with Bench(private_redis()) as bench:
        # Where ids aren't known for long, an enqueue may not be repeated.
        app = App(bench.cut, task_ttl=1000 if repeats else 10)
        app.register("single", netjobs.work)
        queue = app.queue(QUEUE)
        queue.enqueue("single", netjobs.first_args(1))

        # A repeat comes after a pause, so there are fewer of them.
        for cut in sweep(
            bench.proxy,
            lambda _: queue.enqueue("single", netjobs.first_args(1)).id,
            prepare=lambda: bench.eyes.call("FLUSHALL"),
            ready=bench.ready,
            most=50 if repeats else EVERYWHERE,
        ):
            (task_id,) = cut.error.ids if cut.error else (cut.answer,)
            assert task_id is not None
            state = bench.state()
            found = places(state)
            assert set(found) <= {task_id.encode()}
            assert len([key for key in state if b":task:" in key]) == len(found)
            count = found[task_id.encode()]
            assert count == 1 if cut.answered else count <= 1
            outcomes[f"{'returned' if cut.answered else 'raised'}, stored {count}"] += 1
    figures(str(dict(outcomes)))
    if repeats:
        assert set(outcomes) == {"returned, stored 1"}
    else:
        assert outcomes["raised, stored 1"] >= 2
        assert outcomes["raised, stored 0"] >= 50
