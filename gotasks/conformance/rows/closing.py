"""Rows: closing. What is closed is closed, leaves nothing behind, and what is apart stays apart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from gotasks.broker import Broker, Capability, State
from gotasks.conformance.adapter import NotApplicable
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import WRITES, Scene
from gotasks.errors import BrokerClosed

#: How long a call that waits may go on after `close`, and what a busy machine adds. Seconds.
_WAKES, _BUSY = 1.0, 0.75

#: What a process holds of the system, as the directory where it can be counted.
_DESCRIPTORS = next((each for each in (Path("/proc/self/fd"), Path("/dev/fd")) if each.is_dir()), None)


@row("CLS-01")
def close_wakes_who_waits_and_whatever_comes_later_is_told(it: Scene) -> None:
    """Given a client with a call of `acquire` that waits, when another thread closes the client, the call ends within
    1 s. Closing it once more does nothing; every later call raises `BrokerClosed`.
    """
    it.put()
    client = it.client()
    lease = it.take_one(by=client)
    ended: list[float] = []

    def wait() -> None:
        with suppress(BrokerClosed):
            it.take(by=client, queue=it.name("empty"), wait=5.0)
        ended.append(time.monotonic())

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    threading.Event().wait(
        0.2
    )  # nothing but time can tell that it waits; if it doesn't yet, that is fine too
    closed = time.monotonic()
    client.close()
    waiter.join(_WAKES + _BUSY)
    seconds = (ended or [time.monotonic()])[0] - closed
    it.figures["seconds"] = round(seconds, 3)
    expect(
        ended,
        f"an acquire(wait=5) that another thread's close should wake within {_WAKES:g} s still waits "
        f"{seconds:.1f} s after it",
    )
    client.close()
    calls: Mapping[str, Callable[[], object]] = {
        "enqueue": lambda: client.enqueue([it.envelope()]),
        "acquire": lambda: it.take(by=client),
        **{name: partial(call, it, client, lease, 1) for name, call in WRITES.items()},
        "stats": lambda: client.stats(it.queue),
        "purge": lambda: client.purge(it.queue),
        **_claimed(it, client),
    }
    others = {name: answer for name, call in calls.items() if (answer := _answer(call)) != "BrokerClosed"}
    expect_equal(others, {}, "what calls after close raise instead of BrokerClosed")


def _claimed(it: Scene, client: Broker) -> Mapping[str, Callable[[], object]]:
    calls: Mapping[Capability, tuple[str, Callable[[], object]]] = {
        Capability.BROWSE: ("browse", lambda: client.browse(it.queue, state=State.READY, limit=1)),
        Capability.RECORDS: ("get", lambda: client.get(["a"])),
        Capability.CANCEL: ("cancel", lambda: client.cancel(["a"], keep_for=0)),
    }
    return dict(call for capability, call in calls.items() if it.claims(capability))


def _answer(call: Callable[[], object]) -> str:
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "nothing"


@row("CLS-02")
def what_is_opened_and_closed_leaves_no_thread_and_no_descriptor(it: Scene) -> None:
    """Given clients that are opened, used and closed one after the other, when all are closed, this process has as many
    threads and file descriptors (sockets are such) as before.
    """
    if _DESCRIPTORS is None:
        raise NotApplicable("this system doesn't tell which file descriptors a process has open")
    _open_and_close(it)  # whatever is made once stays
    threads, descriptors = threading.active_count(), _open_descriptors()
    count = it.times(quick=20, full=50)
    for _ in range(count):
        _open_and_close(it)
    ends = time.monotonic() + 2.0  # a thread may need a moment
    while time.monotonic() < ends and (threading.active_count(), _open_descriptors()) > (
        threads,
        descriptors,
    ):
        time.sleep(0.01)
    more_threads = threading.active_count() - threads
    more_descriptors = _open_descriptors() - descriptors
    it.figures["opened"] = count
    expect(
        more_threads <= 0,
        f"{count} clients that were opened and closed have left {more_threads} threads behind",
    )
    expect(
        more_descriptors <= 0,
        f"{count} clients that were opened and closed have left {more_descriptors} file descriptors behind",
    )


def _open_and_close(it: Scene) -> None:
    client = it.client(it.url)
    it.put(by=client)
    lease = it.take_one(by=client)
    client.ack([it.write(lease)], keep_for=0)
    it.take(by=client, wait=0.002)
    client.close()


def _open_descriptors() -> int:
    assert _DESCRIPTORS is not None
    return sum(1 for _ in _DESCRIPTORS.iterdir())


@row("CLS-03", title="two places on one server don't see each other")
def two_places_on_one_server_dont_see_each_other(it: Scene) -> None:
    """Given two places on one server, when both get a task of the same id in a queue of the same name, neither is
    refused as known. Each client finds the task of its own place only, and a purge in one leaves the other alone.
    """
    url = it.adapter.url(it.name("other").replace(".", "-"))
    it.at_end(lambda: it.adapter.drop(url))
    there = it.client(url)
    (task_id,) = it.put(body=b"here")
    known = there.enqueue([it.envelope(b"there", task_id=task_id)])
    expect_equal(known, {}, "what an enqueue says of an id that only another place has")
    there.enqueue([it.envelope(b"there")])
    found = [each.envelope.body for each in it.take_all(9, wait=0.1)]
    expect_equal(found, [b"here"], "the bodies that a client finds in the queue of its place")
    purged = there.purge(it.queue)
    expect_equal(purged, 2, "how many tasks a purge finds in the other place")


@row("CLS-04")
def what_has_ended_leaves_nothing_on_the_server(it: Scene) -> None:
    """Given tasks that were taken, given back, moved, left behind by a dead holder, and in the end acked with
    `keep_for=0` or purged, when all clients are closed, nothing of them is stored any more.
    """
    holder = it.client()
    it.put(4)
    it.take(by=it.broker, queue=it.name("empty"), wait=0.01)  # whoever waits may leave a trace, too
    lease = it.take_one(by=holder, lease_for=it.lease)
    it.abandon([lease], by=holder)
    for number, each in enumerate(it.take_all(4, wait=it.grace)):
        target = it.fatal if number % 2 else None
        it.broker.release([it.write(each, queue=target)])
    if it.claims(Capability.DELAY):
        it.broker.enqueue([it.envelope(delay=it.later)])
    it.drain()
    it.broker.purge(it.queue)
    it.drain(queue=it.fatal)
    it.broker.close()
    # A trace with a short time to live may go by itself.
    ends = time.monotonic() + it.grace
    while (left := it.adapter.dump(it.url)) and time.monotonic() < ends:
        time.sleep(0.02)
    expect_equal(dict(left), {}, "what is still stored of tasks that have all ended")
