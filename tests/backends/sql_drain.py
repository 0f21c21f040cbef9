"""A process that drains a queue by threads, as workers do: python -m tests.backends.sql_drain URL QUEUE

It waits for a line before it begins. At the end it prints, as JSON, the ids that it acked and the errors it met.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import traceback

from gotasks.broker import Broker, Write
from gotasks.discovery import open_broker

THREADS = 4
LEASE = 60.0


def drain(broker: Broker, queue: str, acked: list[str], errors: list[str]) -> None:
    """Acquire and ack until nothing is left; some are checkpointed or extended before, some are put back once."""
    put_back: set[str] = set()
    try:
        while leases := broker.acquire(queue, limit=random.randint(1, 50), wait=0.5, lease_for=LEASE):
            random.shuffle(leases)  # calls that lock the same rows in another order
            back = [each for each in leases if random.random() < 0.02 and each.envelope.id not in put_back]
            put_back |= {each.envelope.id for each in back}
            rest = [each for each in leases if each not in back]
            lost = broker.release([Write(lease=each, body=each.envelope.body, seq=1) for each in back])
            lost |= broker.checkpoint([Write(lease=each, body=b"checkpointed", seq=1) for each in rest[::3]])
            lost |= broker.extend(rest[::2], lease_for=LEASE)
            lost |= broker.ack(
                [Write(lease=each, body=b"done", seq=2) for each in rest], keep_for=random.choice((0.0, 60.0))
            )
            if lost or any(each.deaths for each in leases):
                errors.append(f"lost {len(lost)}, or a lease that was over")
            acked += [each.envelope.id for each in rest]
    except Exception:
        errors.append(traceback.format_exc())


def main(url: str, queue: str) -> None:
    """Drain it by several threads on one broker."""
    broker = open_broker(url)
    broker.stats(queue)
    print("ready", flush=True)  # noqa: T201 - to the test
    sys.stdin.readline()
    acked: list[list[str]] = [[] for _ in range(THREADS)]
    errors: list[str] = []
    threads = [threading.Thread(target=drain, args=(broker, queue, each, errors)) for each in acked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    broker.close()
    print(json.dumps({"acked": [each for ids in acked for each in ids], "errors": errors}), flush=True)  # noqa: T201 - to the test


if __name__ == "__main__":
    main(*sys.argv[1:])
