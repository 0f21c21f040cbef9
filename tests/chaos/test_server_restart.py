"""The Redis server is stopped, killed, made to forget its scripts, and stays away: the workers go on by themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gotasks import App
from gotasks.conformance.kit.account import Expected
from gotasks.conformance.kit.process import until
from tests.chaos import netjobs
from tests.chaos.netcrew import Crew, Verdict, settled
from tests.redis_server import PrivateRedis
from tests.resp import Resp

#: What a worker says when it starts and stops.
INTRODUCTION = 12


@pytest.fixture
def durable(private_redis: Callable[..., PrivateRedis]) -> PrivateRedis:
    """A server that has on disk what it has confirmed."""
    return private_redis(appendonly="yes", appendfsync="always")


@contextmanager
def at(server: PrivateRedis) -> Iterator[App]:
    """The app at this server, in this process."""
    app = netjobs.build()
    app.use_broker(server.url)
    yield app
    app.close()


def enqueue(app: App, job: str, count: int, ms: int) -> dict[str, Expected]:
    """Enqueue so many tasks; what is to become of them."""
    args = netjobs.first_args(ms)
    wanted = Expected.of(app.jobs[job], args)
    return {task.id: wanted for task in app.queue(netjobs.QUEUE).enqueue_many(job, [args] * count)}


def told(crew: Crew, word: str) -> int:
    """How many lines of log have this word."""
    return sum(word in line for line in crew.output.splitlines())


@pytest.mark.timeout(120)
def test_five_restarts(durable: PrivateRedis, tmp_path: Path, figures: Callable[[str], None]) -> None:
    """5,000 tasks of 10 ms; the server is stopped in an orderly way and killed in turn, with tasks in flight."""
    with at(durable) as app, Crew(tmp_path, durable.url, count=2, limit=5, lease=5) as crew:
        expected = enqueue(app, "single", 5000, 10)
        in_flight: list[int] = []

        def one_in_flight() -> bool:
            in_flight[number:] = [crew.running_at(time.monotonic())]
            return in_flight[number] > 0

        for number in range(5):
            until(lambda: crew.done() >= 800 * (number + 1), "the next 800 tasks", timeout=30)  # noqa: B023
            until(one_in_flight, "a task in flight", timeout=30)
            if number % 2:
                durable.kill()
            else:
                durable.stop()
            durable.start()
        settled(app, timeout=60)
        verdict = Verdict(app, crew.history, expected)
        figures(f"in flight at the five restarts: {in_flight}; lines of log: {crew.lines}")
        figures(str(verdict))
        verdict.check()
        # An outage costs a few lines, a task in doubt two; nothing is said for each attempt or each task.
        few = 2 * INTRODUCTION + 5 * 2 * 6
        assert sum(crew.lines) <= few + 2 * len(verdict.reply_lost) + told(crew, "the lease is lost")
        assert told(crew, "Traceback") == 0, crew.output


@pytest.mark.timeout(90)
def test_forgotten_scripts(durable: PrivateRedis, tmp_path: Path, figures: Callable[[str], None]) -> None:
    """SCRIPT FLUSH, as often as it goes, for 1,500 tasks of two workers: nobody notices."""
    flushes = 0
    with at(durable) as app, Crew(tmp_path, durable.url, count=2, limit=5, lease=5) as crew:
        expected = enqueue(app, "chain", 500, 5)
        with Resp(durable.url) as other:
            while crew.done() < 1500:
                other.call("SCRIPT", "FLUSH")
                flushes += 1
                assert crew.history.entries or flushes < 100_000
                time.sleep(0.005)  # between two flushes
        settled(app, timeout=20)
        verdict = Verdict(app, crew.history, expected)
        figures(str(verdict))
        verdict.check()
        figures(f"{flushes} flushes; lines of log: {crew.lines}")
        assert flushes > 20
        assert verdict.done == 500
        assert max(crew.lines) <= INTRODUCTION, crew.output


@pytest.mark.timeout(120)
def test_ten_seconds_away(durable: PrivateRedis, tmp_path: Path, figures: Callable[[str], None]) -> None:
    """The server comes back after 10 s: every worker resumes alone and soon, and the lease has outlasted it all."""
    with at(durable) as app, Crew(tmp_path, durable.url, count=2, limit=5, lease=20) as crew:
        expected = enqueue(app, "chain", 400, 10)
        until(lambda: crew.done() >= 300, "tasks under way", timeout=20)
        durable.stop()
        before = crew.lines
        time.sleep(10)  # how long the server is away
        away = [after - at_first for after, at_first in zip(crew.lines, before, strict=True)]
        durable.start()
        back = time.monotonic()
        resumed: dict[int, float] = {}

        def all_resumed() -> bool:
            for each in crew.history.update().entries:
                if each.what == "start" and each.at > back:
                    resumed.setdefault(each.pid, each.at - back)
            return len(resumed) == len(crew.processes)

        until(all_resumed, "both workers at work again", timeout=10, pause=0.001)
        settled(app, timeout=40)
        verdict = Verdict(app, crew.history, expected)
        figures(str(verdict))
        verdict.check()
        figures(
            f"resumed after {[round(each, 2) for each in resumed.values()]} s; lines of log while away: {away}"
        )
        assert max(resumed.values()) < 3
        assert max(away) <= 4, crew.output
        assert told(crew, "the broker is back") == len(crew.processes), crew.output
