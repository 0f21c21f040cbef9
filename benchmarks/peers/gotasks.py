"""gotasks, on whatever server the URL names: default settings, so leases, checkpoints and records."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial

from benchmarks.peers.crowd import crowded
from benchmarks.peers.kit import QUEUE, Peer, mark, setup
from benchmarks.protocol import BURNS, NAP, Unsupported
from gotasks import App, ArgsMap, step
from gotasks.errors import UnknownScheme


def _url() -> str:
    """The broker's URL for a server's URL: in SQLAlchemy's form, or in a namespace of its own."""
    scheme, colon, rest = setup.url.partition("://")
    if scheme == "postgresql":
        return f"postgresql+psycopg{colon}{rest}"
    return setup.url if scheme == "sqlite" else f"{setup.url}?namespace={QUEUE}"


app = App(_url())
queue = app.queue(QUEUE, max_limit=setup.concurrency)


def one(args: ArgsMap) -> None:
    """A job of one step."""
    mark(args["number"])


def nap(args: ArgsMap) -> None:
    """Keep a slot for a while."""
    mark(args["number"])
    time.sleep(NAP)


def burn(args: ArgsMap, *, seconds: float) -> None:
    """Keep a core busy for so long."""
    mark(args["number"])
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def first(args: ArgsMap) -> None:
    """Begin the chain."""
    mark(3 * args["number"])


def second(args: ArgsMap) -> None:
    """Go on with the chain."""
    mark(3 * args["number"] + 1)


def third(args: ArgsMap) -> None:
    """End the chain."""
    mark(3 * args["number"] + 2)


app.register("one", one)
app.register("nap", nap)
app.register("chain", first, second, third)
for name, seconds in BURNS.items():
    app.register(name, step(partial(burn, seconds=seconds), name=name))


class Gotasks(Peer):
    """The checkout, installed."""

    module = "benchmarks.peers.gotasks:app"

    async def prepare(self) -> None:
        """Look once: a SQL server's empty database gets its tables. Raises Unsupported where we have no backend."""
        try:
            app.stats(QUEUE)
        except UnknownScheme as error:
            raise Unsupported(str(error)) from None

    async def open(self) -> None:
        app.stats(QUEUE)  # connects

    async def close(self) -> None:
        app.close()

    def __init__(self) -> None:
        self._more: ArgsMap = {}

    def carry(self, size: int) -> None:
        self._more = {"data": "x" * size}

    def crowd(self, what: str, size: int, samples: int) -> Mapping[str, float]:
        return crowded(_url(), what, size, samples)

    async def enqueue(self, job: str, number: int) -> None:
        queue.enqueue(job, {"number": number, **self._more})

    async def enqueue_many(self, job: str, numbers: Sequence[int]) -> None:
        queue.enqueue_many(job, [{"number": number, **self._more} for number in numbers])

    async def pending(self) -> int:
        stats = app.stats(QUEUE)
        fatal = app.stats(app.fatal_queue)
        return (stats.ready or 0) + (stats.leased or 0) + (stats.scheduled or 0) + (fatal.ready or 0)

    def worker(self, number: int) -> list[str]:
        return ["gotasks", "worker", self.module, "--queue", f"{QUEUE}:{setup.concurrency}"]


peer = Gotasks()
