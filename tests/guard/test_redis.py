"""What a task costs a Redis server, and the network before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from gotasks.conformance.kit.proxy import Proxy
from gotasks_redis.conformance import RedisAdapter
from tests.guard.budgets import KEPT_BY_REDIS, REDIS
from tests.guard.costs import Costs, keep
from tests.guard.ways import TASKS, Ways
from tests.redis_server import PrivateRedis
from tests.resp import Resp


@pytest.fixture
def server(private_redis: Callable[..., PrivateRedis]) -> PrivateRedis:
    """Of its own, since a server counts for all its clients together."""
    return private_redis()


@pytest.fixture
def proxy(server: PrivateRedis) -> Iterator[Proxy]:
    """Counts the bytes of those who go through it."""
    parts = urlsplit(server.url)
    with Proxy(str(parts.hostname), server.port) as proxy:
        yield proxy


def test_a_task_costs_the_server_no_more_than_it_did(
    server: PrivateRedis, proxy: Proxy, figures: Callable[[str], None]
) -> None:
    with Resp(server.url) as beside:

        def count(way: Callable[[], None]) -> Costs:
            beside.call("CONFIG", "RESETSTAT")
            before = proxy.passed
            way()
            commands, passed = _commands(beside), proxy.passed
            return {
                "calls": commands.get("evalsha", 0) + commands.get("eval", 0),
                "commands": sum(commands.values()),
                "bytes sent": passed["requests"] - before["requests"],
                "bytes received": passed["replies"] - before["replies"],
            }

        ways = Ways(proxy.through(server.url))
        measured = ways.counted(count)
        ways.app.close()
    keep("Redis", measured, REDIS, figures)


def test_a_task_keeps_no_more_memory_of_the_server_than_it_did(
    server: PrivateRedis, figures: Callable[[str], None]
) -> None:
    ways = Ways(server.url)

    def kept() -> Costs:
        return {"bytes": sum(RedisAdapter(server.url).dump(server.url).values()) / TASKS}

    ways.enqueue()
    measured = {"waiting": kept()}
    ways.app.drain()
    measured["finished, its record kept"] = kept()
    ways.app.close()
    keep("Redis's memory", measured, KEPT_BY_REDIS, figures)


def _commands(beside: Resp) -> dict[str, int]:
    """How often each command was carried out since the counts began, those in scripts too; without our own."""
    info = beside.call("INFO", "commandstats")
    assert isinstance(info, bytes)
    counts = {}
    for line in info.decode().splitlines()[1:]:
        name, _, values = line.partition(":")
        counts[name.removeprefix("cmdstat_")] = int(values.partition(",")[0].removeprefix("calls="))
    counts.pop("config|resetstat", None)  # after which it begins
    return counts
