"""The node of a RabbitMQ cluster that leads a queue is killed while tasks are put back by way of another one.

Once, and with `GOTASKS_TEST_STORMS=full` as often as docs/brokers/rabbitmq.md says.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from gotasks.broker import BrokerURL, Lease
from gotasks.errors import BrokerUnavailable
from gotasks_rabbitmq import RabbitBroker
from gotasks_rabbitmq.names import Names
from tests.backends.contract import QUEUE, envelope, eventually, take, write
from tests.chaos.conftest import FULL
from tests.rabbit_server import PrivateRabbit

KILLS = 20 if FULL else 1
TASKS, THREADS = 30, 8
#: So many tasks are put back between two kills.
HOPS = 300
#: For which nothing may be put back: a server that has lost its leader while it asks that gives up after 65 s. Seconds.
FAILOVER = 120.0


@pytest.fixture
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[PrivateRabbit]]:
    """Three, of one cluster."""
    request.getfixturevalue("rabbit_program")
    with ExitStack() as stack:
        nodes: list[PrivateRabbit] = []
        for number in range(3):
            directory = tmp_path / f"node-{number}"
            directory.mkdir()
            node = PrivateRabbit(directory, beside=nodes[0] if nodes else None)
            stack.callback(node.close)
            nodes.append(node.start())
        yield nodes


class Hops:
    """Puts tasks back with a number that rises, over and over, on several threads."""

    def __init__(self, broker: RabbitBroker) -> None:
        #: By task, the last number of which the broker said that it's stored.
        self.confirmed: Counter[str] = Counter()
        #: By how much tasks were less than that when they came, and their deaths.
        self.set_back: list[tuple[int, int]] = []
        self._broker = broker
        self._stop = threading.Event()

    def go_on(self) -> None:
        """Until it's stopped."""
        while not self._stop.is_set():
            with suppress(BrokerUnavailable):
                for lease in take(self._broker, 1, wait=0.5):
                    self._put_back(lease)

    def some(self) -> None:
        """Return when so many more tasks were put back."""
        since = self.confirmed.total()
        eventually(lambda: self.confirmed.total() > since + HOPS, what="hops", within=FAILOVER)

    def stop(self) -> None:
        """Have all threads return."""
        self._stop.set()

    def _put_back(self, lease: Lease) -> None:
        task, number = lease.envelope.id, int(lease.envelope.body)
        if number < self.confirmed[task]:
            self.set_back.append((self.confirmed[task] - number, lease.deaths))
        lost: list[frozenset[str]] = []

        def answered() -> bool:
            with suppress(BrokerUnavailable):
                lost.append(self._broker.checkpoint([write(lease, b"%d" % (number + 1))]))
            return bool(lost)

        eventually(answered, what="an answer", within=FAILOVER)
        if not lost[0]:
            self.confirmed[task] = number + 1


def leader(nodes: Sequence[PrivateRabbit], queue: str) -> PrivateRabbit:
    """The node that leads it."""
    found: list[PrivateRabbit] = []

    def there() -> bool:
        name = nodes[0].eval(f"element(2, ra_leaderboard:lookup_leader('%2F_{queue}'))")
        found[:] = [node for node in nodes if node.node == name.strip("'")]
        return bool(found)

    eventually(there, what="a leader", within=FAILOVER)
    return found[0]


@pytest.mark.timeout(900 if FULL else 240)
def test_cluster_storm(nodes: list[PrivateRabbit], figures: Callable[[str], None]) -> None:
    ours = nodes[0]
    url = BrokerURL(f"{ours.url}?timeout=5")
    queue = Names("gt").tasks(QUEUE)
    broker = RabbitBroker.from_url(url)
    tasks = [f"task-{number}" for number in range(TASKS)]
    broker.enqueue([envelope(task, b"0") for task in tasks])
    hops = Hops(broker)
    with ThreadPoolExecutor(THREADS) as pool:
        threads = [pool.submit(hops.go_on) for _ in range(THREADS)]
        try:
            for _ in range(KILLS):
                leads = leader(nodes, queue)
                if leads is ours:
                    other = f"{{'%2F_{queue}', '{nodes[1].node}'}}"
                    ours.eval(f"ra:transfer_leadership({{'%2F_{queue}', node()}}, {other})")
                    leads = nodes[1]
                hops.some()
                leads.kill()
                hops.some()
                leads.start()
        finally:
            hops.stop()
        for thread in threads:
            thread.result(FAILOVER)
    broker.close()

    broker = RabbitBroker.from_url(url)
    found: Counter[str] = Counter()
    quiet = time.monotonic() + 2.0
    while time.monotonic() < quiet:
        for lease in take(broker, 100, wait=0.5):
            found[lease.envelope.id] += 1
    broker.close()
    doubled = sum(count > 1 for count in found.values())
    figures(
        f"{KILLS} kills of the node that leads, {hops.confirmed.total()} hops of {TASKS} tasks; "
        f"lost {TASKS - len(found)}, doubled {doubled}, "
        f"set back by a step {len(hops.set_back)}"
    )
    assert set(found) == set(tasks)
    assert doubled <= KILLS * THREADS  # `server_crash_duplicates="bounded"`
    if not doubled:
        assert all(steps == 1 and deaths for steps, deaths in hops.set_back)
