"""Rows: network. Connections are refused, killed, or lead nowhere, and replies come late or in crumbs."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Pending
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from gotasks.broker import Broker, Capability, Lease
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.kit.sweep import connect
from gotasks.conformance.row import row
from gotasks.conformance.scene import PATIENCE, Scene, ids_of
from gotasks.errors import BrokerUnavailable, GotasksError

#: Within this time a client is to be back on a network that has healed. Seconds.
BACK = 5.0

#: Descriptors that a client may come to need while its connections are killed again and again.
SPARE = 12


@row("DLV-02")
def an_enqueue_that_cannot_reach_the_server_raises(it: Scene) -> None:
    """Given a server that refuses connections, or one whose connection is cut before a byte of the call has passed,
    `enqueue` raises `BrokerUnavailable`, or has stored the task by a repeat of its own. It never returns for a task
    that isn't stored.
    """
    proxy, url = it.proxy()
    connected, fresh = it.client(url), it.client(url)
    returned: list[str] = []

    def enqueue(broker: Broker) -> bool:
        envelope = it.envelope()
        try:
            broker.enqueue([envelope])
        except BrokerUnavailable:
            return False
        returned.append(envelope.id)
        return True

    connect(lambda: connected.stats(it.queue))
    with proxy.refusing():
        answered = [enqueue(connected), enqueue(fresh)]
    expect(not any(answered), "an enqueue returned while the server refused connections")
    for _ in range(it.times(quick=3, full=30)):
        for each in (connected, fresh):
            connect(partial(each.stats, it.queue))
            proxy.cut_after("requests", 0)
            enqueue(each)
            proxy.disarm()
    missing = set(returned) - set(ids_of(it.drain(by=it.client())))
    expect(not missing, f"{len(missing)} of {len(returned)} tasks whose enqueue returned aren't stored")


@row("NET-03")
def a_waiting_acquire_outlives_its_connections(it: Scene) -> None:
    """Given a client that waits in `acquire` and asks again when that raises, when its connection is killed 20 times in
    5 s, it gets a task that is enqueued then within 5 s (and a lease, if a dead connection had taken it), and there are
    about as many open descriptors as before.
    """
    proxy, url = it.proxy()
    client = it.client(url)
    over = threading.Event()
    it.at_end(over.set)

    def consume() -> list[Lease]:
        while not over.is_set():
            try:
                leases = it.take(by=client, wait=1.0, lease_for=it.lease)
            except BrokerUnavailable:
                over.wait(0.005)  # as every worker does
            else:
                if leases:
                    return leases
        return []

    connect(lambda: client.stats(it.queue))
    before = _descriptors()
    consumer = it.begin(consume)
    for _ in range(20):
        it.eventually(lambda: proxy.open, "a connection of the client that waits in acquire")
        over.wait(it.times(quick=20, full=250) / 1000)  # so that it's in the middle of its wait
        proxy.cut()
    (task,) = it.put(by=it.client())
    began = time.monotonic()
    got = _outcome(consumer, it.lease + it.grace + BACK)
    it.figures["seconds until it was back"] = round(time.monotonic() - began, 3)
    it.figures["connections"] = proxy.accepted
    expect(
        isinstance(got, list) and ids_of(got) == [task],
        f"what a waiting acquire came to, whose connection was killed 20 times, when a task was there: {got!r}",
    )
    proxy.cut()
    more = _descriptors() - before
    expect(more <= SPARE, f"{more} descriptors more are open after 20 connections were killed")


@row("NET-04")
def a_call_that_nobody_answers_raises_in_time(it: Scene) -> None:
    """Given a connected client, when nothing passes any more in either direction and nobody is told, each call raises
    `BrokerUnavailable` within 30 s, or as soon as the adapter's `impatient` says.
    """
    url, bound = it.adapter.impatient(it.url)
    proxy, url = it.proxy(url)
    client = it.client(url)
    it.put(2, by=client)
    lease = it.take_one(by=client)
    calls: dict[str, Callable[[], object]] = {
        "enqueue": lambda: client.enqueue([it.envelope()]),
        "acquire": lambda: it.take(by=client),
        "extend": lambda: client.extend([lease], lease_for=it.lease),
        "checkpoint": lambda: client.checkpoint([it.write(lease)]),
        "stats": lambda: client.stats(it.queue),
    }
    with proxy.black_hole():
        end = time.monotonic() + bound
        begun = {name: it.begin(call) for name, call in calls.items()}
        came = {name: _outcome(future, end - time.monotonic()) for name, future in begun.items()}
        it.figures["seconds"] = round(bound - (end - time.monotonic()), 3)
    wrong = {name: value for name, value in came.items() if not isinstance(value, BrokerUnavailable)}
    expect(
        not wrong,
        f"calls that didn't raise BrokerUnavailable within {bound:g} s of silence, and theirs: {wrong!r}",
    )


@row("NET-05")
def a_reply_that_came_late_or_in_part_is_no_answer_to_the_next_call(it: Scene) -> None:
    """Given a client that has given a call up, or whose connection was cut in the middle of a reply, when it's used for
    other calls, each of them gets its own reply, whatever still arrives.
    """
    url, bound = it.adapter.impatient(it.url)
    proxy, url = it.proxy(url)
    client = it.client(url)
    wanted: list[str] = []
    answers: list[str] = []

    def next_call() -> None:
        queue = it.name(f"next-{len(wanted)}")
        wanted.extend(it.put(queue=queue, by=it.client()))

        def acquire() -> list[Lease]:
            try:
                return it.take(by=client, queue=queue, wait=0.2, lease_for=it.lease)
            except BrokerUnavailable:  # it has noticed only now
                return []

        answers.extend(ids_of(it.eventually(acquire, "an answer to an acquire on a network that has healed")))

    it.put(by=client)
    with proxy.holding("replies"):
        _outcome(it.begin(lambda: it.take(by=client, lease_for=it.lease)), bound)
    next_call()
    for count in (1, 5, 30):
        connect(lambda: client.stats(it.queue))
        it.put(by=it.client())
        proxy.cut_after("replies", count)
        _outcome(it.begin(lambda: it.take(by=client, lease_for=it.lease)), bound)
        proxy.disarm()
        next_call()
    expect_equal(
        answers, wanted, "tasks that calls on other queues gave, after one whose reply was late or cut"
    )


@row("NET-06")
def replies_that_come_byte_by_byte_are_read_whole(it: Scene) -> None:
    """Given a network that passes on one byte at a time, and late, a task goes through all that can happen to it, and
    every body is as it was written.
    """
    proxy, url = it.proxy()
    client = it.client(url)
    proxy.slices, proxy.delay = 1, it.times(quick=2, full=50) / 1000
    stored, kept, given_back = bytes(range(256)), bytes(range(256)) * 2, bytes(range(255, -1, -1))
    it.put(3, by=client, body=stored)
    leases = it.take_all(3, by=client, wait=PATIENCE)
    seen = [lease.envelope.body for lease in leases]
    for lease in leases:
        client.extend([lease], lease_for=it.long)
    client.ack([it.write(leases.pop())], keep_for=0)
    client.checkpoint([it.write(leases[0], kept)])
    if it.claims(Capability.HANDOFF):
        leases[0] = it.take_one(by=client, wait=PATIENCE)
        seen.append(leases[0].envelope.body)
    for lease in leases:
        client.release([it.write(lease, given_back, seq=2)])
    seen += [lease.envelope.body for lease in it.drain(by=client)]
    handed_off = [kept] if it.claims(Capability.HANDOFF) else []
    expect_equal(seen, [stored] * 3 + handed_off + [given_back] * 2, "bodies that came byte by byte")


@row("NET-07")
def an_unreachable_server_is_an_error_that_tells_no_password(it: Scene) -> None:
    """Given a URL with a password, when the server refuses connections, a call raises `BrokerUnavailable`. The password
    is neither in that error, nor in the one for a wrong password, nor in what is logged meanwhile or in the broker's
    own `repr`.
    """
    proxy, url = it.proxy()
    secret = f"pw{it.random.getrandbits(64):016x}"
    said = _Said(secret)
    with ExitStack() as stack:
        stack.enter_context(said)
        try:
            it.adapter.open(_with_password(url, secret)).close()
        except GotasksError as error:  # it takes none
            said.note(error)
        else:
            url = _with_password(url, secret)
        client = it.client(url)
        said.text.append(f"{client!r} {client}")
        try:
            client.stats(it.queue)  # a server that asks for no password may answer
        except GotasksError as error:
            said.note(error)
        with proxy.refusing():
            came = _outcome(it.begin(lambda: client.stats(it.queue)), PATIENCE)
        if isinstance(came, BaseException):
            said.note(came)
    expect(
        isinstance(came, BrokerUnavailable),
        f"a call to a server that refuses connections came to this: {came!r}",
    )
    expect(not said.secret(), f"the password of the URL was told: {said.secret()}")


class _Said(logging.Handler):
    """All that is logged, and all that errors say, in the hands of somebody who looks for a secret."""

    def __init__(self, secret: str) -> None:
        super().__init__(logging.DEBUG)
        self._secret = secret
        self.text: list[str] = []

    def __enter__(self) -> None:
        root = logging.getLogger()
        self._before = root.level
        root.addHandler(self)
        root.setLevel(logging.DEBUG)

    def __exit__(self, *exc: object) -> None:
        logging.getLogger().removeHandler(self)
        logging.getLogger().setLevel(self._before)

    def emit(self, record: logging.LogRecord) -> None:
        self.text.append(f"log of {record.name}: {self.format(record)}")

    def note(self, error: BaseException) -> None:
        """Keep what an error says, and those behind it."""
        lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self.text.append(f"{error!s} {error!r} {lines}")

    def secret(self) -> str:
        """The line that tells it, without it; empty if none does."""
        lines = (line for text in self.text for line in text.splitlines() if self._secret in line)
        return next(lines, "").replace(self._secret, "<the password>")


def _with_password(url: str, secret: str) -> str:
    parts = urlsplit(url)
    login, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{login.partition(':')[0] or 'nobody'}:{secret}@{place}"))


def _outcome(future: Future[Any], within: float) -> object:
    """What came of a call: its result, its error, or None if it's still going on."""
    try:
        error = future.exception(max(0.0, within))
        return future.result() if error is None else error
    except Pending:
        return None


def _descriptors() -> int:
    """How many descriptors this process has open; 0 where that can't be seen."""
    for each in ("/proc/self/fd", "/dev/fd"):
        try:
            return sum(1 for _ in Path(each).iterdir())
        except OSError:
            continue
    return 0
