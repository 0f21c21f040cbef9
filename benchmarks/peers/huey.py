"""huey on SQLite or Redis, with threads. It forgets a task when it hands it out, so a crash loses it."""

from __future__ import annotations

import time

from huey import RedisHuey, SqliteHuey

from benchmarks.peers.kit import QUEUE, Peer, mark, setup
from benchmarks.protocol import NAP

if setup.url.startswith("sqlite:///"):
    # fsync=None is its default: synchronous=FULL, SQLite's own default.
    app = SqliteHuey(QUEUE, filename=setup.url.removeprefix("sqlite:///"), results=False)
else:
    app = RedisHuey(QUEUE, url=setup.url, results=False)


@app.task()
def one(number: int) -> None:
    """A job of one step."""
    mark(number)


@app.task()
def nap(number: int) -> None:
    """Keep a slot for a while."""
    mark(number)
    time.sleep(NAP)


@app.task()
def first(number: int) -> int:
    """Begin the chain; what a task returns goes to the next."""
    mark(3 * number)
    return number


@app.task()
def second(number: int) -> int:
    """Go on with the chain."""
    mark(3 * number + 1)
    return number


@app.task()
def third(number: int) -> None:
    """End the chain."""
    mark(3 * number + 2)


class Huey(Peer):
    """Its consumer with worker threads; chains by `then`."""

    module = "benchmarks.peers.huey.app"

    async def open(self) -> None:
        len(app)  # connects

    async def enqueue(self, job: str, number: int) -> None:
        if job == "chain":
            app.enqueue(first.s(number).then(second).then(third))
        else:
            {"one": one, "nap": nap}[job](number)

    async def pending(self) -> int:
        return len(app)

    def worker(self, number: int) -> list[str]:
        return [
            *("huey_consumer", self.module),
            *("--workers", str(setup.concurrency), "--worker-type", "thread", "--quiet"),
        ]


peer = Huey()
