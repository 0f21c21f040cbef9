"""Rows: servers that are full, that forget what was prepared on them, or that keep less than is claimed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from gotasks.broker import Broker, Lease
from gotasks.conformance.adapter import NotApplicable, Server
from gotasks.conformance.expect import Nonconformance, expect
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene
from gotasks.errors import BrokerUnavailable, Rejected

T = TypeVar("T")

#: Within so many seconds a server that has what it needs serves again.
SOON = 8.0


@row("SRV-04", timeout=150)
def a_full_server_refuses_in_words_and_loses_nothing(it: Scene) -> None:
    """Given a server that has no room for anything more, `enqueue` raises Rejected or BrokerUnavailable; what it
    refused isn't there, what it returned from is, and nothing is there in part. A checkpoint, a release and an ack
    are carried out, or raise BrokerUnavailable; repeated when there is room again, they are. Then all goes on.
    """
    server = it.server()
    broker = it.client(server.url)
    books = _Books()
    books.must |= dict.fromkeys(it.put(2, by=broker), b"body")
    held = it.name("held")
    it.put(3, by=broker, queue=held)
    kept = it.take_one(by=broker, queue=held, lease_for=it.lease)
    freed, ended = (it.take_one(by=broker, queue=held) for _ in range(2))
    writes: dict[str, Callable[[], frozenset[str]]] = {
        "checkpoint": lambda: broker.checkpoint([it.write(kept, b"new")]),
        "release": lambda: broker.release([it.write(freed, b"new")]),
        "ack": lambda: broker.ack([it.write(ended)], keep_for=0),
    }
    with it.adapter.full(server):
        for _ in range(3):
            books.enqueue(it, broker)
        answers = {name: _answer(call) for name, call in writes.items()}
    expect(books.refused, "the server is full, and not one enqueue raised Rejected or BrokerUnavailable")
    lost = [name for name, answer in answers.items() if answer]
    expect(not lost, f"on a full server {', '.join(lost)} is answered as lost, though its receipt holds")
    refused = [name for name, answer in answers.items() if answer is None]
    it.figures |= {"enqueues refused": books.refused, "writes refused": len(refused)}
    for name in refused:
        it.eventually(lambda: _answer(writes[name]) is not None, f"an answer to the {name}")  # noqa: B023
    books.must |= {each.envelope.id: b"new" for each in (kept, freed)}
    books.never.add(ended.envelope.id)
    it.eventually(
        lambda: books.goes_on(it, broker), "an enqueue that is taken when there is room again", within=SOON
    )

    broker.close()  # where a lease has no time, that ends those that it still holds
    reader = it.client(server.url)
    found: dict[str, list[bytes]] = defaultdict(list)

    def all_found() -> bool:
        drained = [_collect(it, reader, each, found) for each in (it.queue, held)]
        return all(drained) and books.must.keys() <= found.keys()

    with suppress(Nonconformance):  # what is missing is said below
        it.eventually(all_found, "all", within=it.lease + it.grace)
    problems = books.problems(found)
    expect(not problems, f"after the server was full and had room again, {'; '.join(problems)}")


def _answer(call: Callable[[], frozenset[str]]) -> frozenset[str] | None:
    """What a write was answered; None if it wasn't."""
    try:
        return call()
    except (BrokerUnavailable, Rejected):
        return None


@dataclass
class _Books:
    """Which tasks must be there, may be there, must not be there."""

    must: dict[str, bytes] = field(default_factory=dict)
    maybe: dict[str, bytes] = field(default_factory=dict)
    never: set[str] = field(default_factory=set)
    refused: int = 0

    def enqueue(self, it: Scene, broker: Broker) -> None:
        """Try to store two tasks on a full server."""
        body = b"x" * min(20_000, it.limits.max_payload or 20_000)
        envelopes = [it.envelope(body) for _ in range(min(2, it.limits.max_batch))]
        bodies = {each.id: body for each in envelopes}
        try:
            broker.enqueue(envelopes)
        except Rejected as error:
            self.refused += 1
            self.never |= set(error.ids)
            self.maybe |= {task: body for task, body in bodies.items() if task not in error.ids}
        except BrokerUnavailable:
            self.refused += 1
            self.maybe |= bodies
        else:
            self.must |= bodies

    def goes_on(self, it: Scene, broker: Broker) -> bool:
        """Whether a task can be stored again."""
        envelope = it.envelope(b"after")
        try:
            broker.enqueue([envelope])
        except (Rejected, BrokerUnavailable):
            self.maybe[envelope.id] = envelope.body
            return False
        self.must[envelope.id] = envelope.body
        return True

    def problems(self, found: dict[str, list[bytes]]) -> list[str]:
        """What is wrong with what was found at the end."""
        says = []
        for task, bodies in found.items():
            body = self.must.get(task, self.maybe.get(task))
            if task in self.never:
                says.append(f"{task} is there, which was refused or acked")
            elif bodies != [body]:
                says.append(
                    f"{task} is there {len(bodies)} times, with {bodies[0][:20]!r} of {len(bodies[0])} bytes"
                )
        return says + [f"{task} is gone" for task in self.must if task not in found]


def _collect(it: Scene, broker: Broker, queue: str, found: dict[str, list[bytes]]) -> bool:
    """Drain a queue; whether that was possible."""
    try:
        for lease in it.drain(by=broker, queue=queue):
            found[lease.envelope.id].append(lease.envelope.body)
    except BrokerUnavailable:
        return False
    return True


@row("SRV-05", timeout=150)
def calls_go_on_when_the_server_forgets_what_was_prepared(it: Scene) -> None:
    """Given a client at work, when its server forgets what was prepared on it and drops its connections, a call may
    raise BrokerUnavailable and nothing else, and sent again it is answered. A waiting `acquire` is no exception. What
    was confirmed stays so.
    """
    server = it.server()
    broker = it.client(server.url)
    disturbed = _Disturbed(it, server)
    there: set[str] = set()
    acked: set[str] = set()
    for _ in range(it.times(quick=4, full=30)):
        there |= set(disturbed.call(lambda: it.put(by=broker)))  # repeated with another id
        disturbed.call(lambda: broker.stats(it.queue))
        leases = disturbed.call(lambda: it.take(by=broker, lease_for=it.lease))
        for lease in leases:  # else it was the first reply that was lost, and the task comes back
            disturbed.call(lambda: broker.extend(leases, lease_for=it.long))  # noqa: B023 - called at once
            write = it.write(lease)
            if it.random.random() < 0.5:
                disturbed.call(lambda: broker.release([write]))  # noqa: B023 - called at once
                continue
            lost = disturbed.call(lambda: broker.ack([write], keep_for=0))  # noqa: B023 - called at once
            if not lost:
                acked.add(lease.envelope.id)
            elif disturbed.repeated:
                there.discard(lease.envelope.id)  # it took effect the first time, or was taken over
    waiting = it.name("waiting")

    def wait() -> None:
        leases: list[Lease] = []
        while not leases:
            with suppress(BrokerUnavailable):
                leases = it.take(by=broker, queue=waiting, wait=5.0, lease_for=it.lease)

    it.in_threads(wait, lambda: disturbed.call(lambda: it.put(by=broker, queue=waiting), times=3))
    found: dict[str, list[bytes]] = defaultdict(list)
    left = there - acked
    with suppress(Nonconformance):
        # What was leased when its reply was lost comes back when that lease is over.
        it.eventually(
            lambda: _collect(it, broker, it.queue, found) and left <= found.keys(), "all", within=it.grace
        )
    it.figures["repeated calls"] = disturbed.repeats
    gone, back = left - found.keys(), acked & found.keys()
    expect(
        not gone and not back,
        f"after the server was disturbed {len(gone)} confirmed tasks are gone, and {len(back)} acked ones are back",
    )


class _Disturbed:
    """Calls, before each of which the server is disturbed."""

    def __init__(self, it: Scene, server: Server) -> None:
        self._it, self._server = it, server
        self.repeated = False  #: whether the last one was made more than once
        self.repeats = 0

    def call(self, call: Callable[[], T], *, times: int = 1) -> T:
        """Disturb the server, then make the call until it is answered; what it gave."""
        for _ in range(times):
            self._it.adapter.disturb(self._server)
        results: list[T] = []
        tries = 0

        def answered() -> bool:
            nonlocal tries
            tries += 1
            with suppress(BrokerUnavailable):
                results.append(call())
            return bool(results)

        self._it.eventually(
            answered, "a call that is answered again after the server was disturbed", within=SOON
        )
        self.repeated = tries > 1
        self.repeats += tries - 1
        return results[0]


@row("SRV-06", timeout=150)
def a_server_that_keeps_less_than_was_promised_is_warned_of(it: Scene) -> None:
    """Given a server that keeps what `limits.durability` says, when it is set to keep less, then `warnings` says so
    in a sentence that it didn't say before.
    """
    if it.limits.durability == "none":
        raise NotApplicable("limits.durability is 'none', so nothing was promised")
    server = it.server()
    broker = it.client(server.url)
    before = list(broker.warnings())
    with it.adapter.weakened(server):
        found = [each for each in broker.warnings() if each not in before]
    expect(
        any(len(each.split()) > 3 for each in found),
        f"the server keeps less than limits.durability ({it.limits.durability}) says, and of that warnings() tells"
        f" nothing; it says {found!r}, and before that {before!r}",
    )
