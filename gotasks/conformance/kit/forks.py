"""Forks: what a process does with a broker before and after it forks. Called in a process of its own (`elsewhere`).

A child says what it saw in one line of JSON, and ends without a clean-up: that is the parent's.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

from gotasks.broker import Broker, Envelope, Lease, Write

#: How long a child may take. Seconds.
PATIENCE = 10.0

#: A lease that nothing here waits for. Seconds.
_LONG = 60.0

#: Calls at the same time go on for so long at the most, however slow the server. Seconds.
_ENOUGH = 4.0

_numbers = itertools.count(1)


class Child:
    """A forked process that does `main` and says what it gave."""

    def __init__(self, main: Callable[[], object]) -> None:
        read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it forks while threads run is what it is for
            self._pid = os.fork()
        if self._pid == 0:
            try:
                said = main()
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(write, json.dumps(said).encode())
            os._exit(0)
        os.close(write)
        self._pipe = read

    def wait(self) -> Any:
        """What it gave; "hangs" if it gave nothing in time, and then it is killed."""
        ready, _, _ = select.select([self._pipe], [], [], PATIENCE)
        said = os.read(self._pipe, 65536) if ready else b'"hangs"'
        os.close(self._pipe)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        return json.loads(said or b'"died"')


def work(broker: Broker, queue: str, count: int) -> str:
    """Take `count` tasks of one's own through their lives, while there is time; "works", or what came out instead."""
    try:
        return _work(broker, queue, count)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _long(broker: Broker) -> float:
    return min(_LONG, broker.limits.max_lease or _LONG)


def _work(broker: Broker, queue: str, count: int) -> str:
    end = time.monotonic() + _ENOUGH
    for _ in range(count):
        if time.monotonic() > end:
            break
        body = os.urandom(8)
        sent = Envelope(
            id=f"{queue.replace('.', '-')}-{os.getpid()}-{next(_numbers)}", queue=queue, body=body
        )
        broker.enqueue([sent])
        leases = broker.acquire(queue, limit=1, wait=5, lease_for=_long(broker))
        if [each.envelope for each in leases] != [sent]:
            return f"it enqueued {sent!r} and acquired {leases!r}"
        if broker.ack([Write(lease=leases[0], body=body, seq=1)], keep_for=0):
            return "its ack was lost"
    return "works"


def fork_with_leases(broker: Broker, queue: str, mine: str, childs: str, rounds: int) -> dict[str, Any]:
    """Fork while holding three leases: what the writes of the child under them were told, and what is left of them."""
    ids = [f"{queue.replace('.', '-')}-{number}" for number in range(3)]
    for each in ids:
        broker.enqueue([Envelope(id=each, queue=queue, body=b"parent")])
    leases: list[Lease] = []
    while len(leases) < 3 and (more := broker.acquire(queue, limit=1, wait=5, lease_for=_long(broker))):
        leases += more

    def in_child() -> object:
        writes = [Write(lease=lease, body=b"child", seq=1) for lease in leases]
        lost = {
            "checkpoint": broker.checkpoint(writes[:1]),
            "release": broker.release(writes[1:2]),
            "ack": broker.ack(writes[2:], keep_for=0),
        }
        works = work(broker, childs, rounds)
        broker.close()
        return {"held": [name for name, receipts in lost.items() if not receipts], "works": works}

    child = Child(in_child)
    works = work(broker, mine, rounds)  # at the same time as the child
    said = child.wait()
    # A write of the child that was carried out would make a repeat of each of these, since it had the same seq.
    lost = [broker.release([Write(lease=lease, body=b"parent", seq=1)]) for lease in leases]
    again = [lease for _ in ids for lease in broker.acquire(queue, limit=1, wait=1, lease_for=_long(broker))]
    return {
        "parent": works,
        "child": said["works"] if isinstance(said, dict) else said,
        "held": said["held"] if isinstance(said, dict) else [],
        "lost": sum(map(bool, lost)),
        "found": sorted((each.envelope.id, each.envelope.body.decode()) for each in again)
        == sorted((each, "parent") for each in ids),
    }


def fork_amid_calls(
    broker: Broker, queue: str, busy_ones: Sequence[str], childs: Sequence[str]
) -> dict[str, Any]:
    """Fork again and again while other threads are inside calls: what became of the children, and of the threads.

    `childs`: a queue for each child; `busy_ones`: one that stays empty, and one for each thread that works.
    """
    empty, *worked_in = busy_ones
    stop = threading.Event()
    problems: list[str] = []

    def busy(name: str) -> None:
        try:
            while not stop.is_set():
                if (said := work(broker, name, 1)) != "works":
                    problems.append(said)
                    return
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")

    def wait() -> None:
        try:
            while not stop.is_set():
                broker.acquire(empty, limit=1, wait=0.2, lease_for=_long(broker))
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")

    # An import that another thread is in the middle of can't be ended by a child. First calls import.
    work(broker, queue, 1)
    broker.acquire(queue, limit=1, wait=0.01, lease_for=_long(broker))
    threads = [threading.Thread(target=busy, args=(name,), daemon=True) for name in worked_in]
    threads.append(threading.Thread(target=wait, daemon=True))
    for thread in threads:
        thread.start()
    said: Counter[str] = Counter()
    for number, name in enumerate(childs):
        time.sleep(0.003 * (number % 5))  # somewhere else in the calls each time
        said[cast(str, Child(lambda name=name: work(broker, name, 3)).wait())] += 1  # type: ignore[misc]
        if said["hangs"]:
            break  # the others would, too
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
    return {"children": dict(said), "problems": problems}
