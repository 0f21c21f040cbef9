"""Redis: what is in the server after a run, and what two namespaces on one server see of each other."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from gotasks import App, reentrant
from gotasks.broker import State
from gotasks.discovery import open_broker
from tests.backends.contract import QUEUE, envelope, eventually, put, stats, take, take_one, write
from tests.redis_server import namespaced
from tests.resp import Resp
from tests.servers import Found


class Keys:
    """What is in one namespace."""

    def __init__(self, url: str) -> None:
        self._server = Resp(url)
        self._pattern = f"{{{parse_qs(urlsplit(url).query)['namespace'][0]}}}:*"

    def all(self) -> dict[str, int]:
        """Every key with its time to live in ms; -1 where it has none."""
        found: dict[str, int] = {}
        cursor: bytes = b"0"
        while True:
            reply = self._server.call("SCAN", cursor, "MATCH", self._pattern, "COUNT", "1000")
            assert isinstance(reply, list)
            after, keys = reply
            assert isinstance(after, bytes)
            assert isinstance(keys, list)
            for key in keys:
                assert isinstance(key, bytes)
                left = self._server.call("PTTL", key)
                assert isinstance(left, int)
                found[key.decode().partition("}:")[2]] = left
            cursor = after
            if cursor == b"0":
                return found

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def keys(redis_url: str) -> Iterator[Keys]:
    keys = Keys(redis_url)
    yield keys
    keys.close()


def run_all_kinds_of_tasks(app: App) -> list[str]:
    """Chains, retries, delayed tasks; all succeed. Returns their ids."""
    failed: set[int] = set()

    def fail_once(args: dict[str, int]) -> None:
        if args["n"] not in failed:
            failed.add(args["n"])
            raise OSError("once")

    def plain(args: dict[str, int]) -> None:
        return None

    app.register("chain", plain, reentrant(fail_once, sleepy_ms=1))
    queue = app.queue(QUEUE)
    tasks = queue.enqueue_many("chain", [{"n": n} for n in range(20)])
    tasks += [queue.enqueue("chain", {"n": 100 + n}, delay=0.05) for n in range(3)]
    with app.worker():
        for task in tasks:
            if app.keep_for:
                task.wait(timeout=20)
        eventually(lambda: app.stats(QUEUE) == stats(), within=20, what="the end of all tasks")
    return [task.id for task in tasks]


def test_a_run_leaves_nothing_but_records_with_a_time_to_live(redis_url: str, keys: Keys) -> None:
    app = App(redis_url, task_ttl=77)
    ids = run_all_kinds_of_tasks(app)
    left = keys.all()
    assert left.keys() == {f"task:{each}" for each in ids}
    assert all(70_000 < ttl <= 77_000 for ttl in left.values()), left
    app.close()


def test_with_task_ttl_0_a_run_leaves_nothing_at_all(redis_url: str, keys: Keys) -> None:
    app = App(redis_url, task_ttl=0)
    run_all_kinds_of_tasks(app)
    assert keys.all() == {}
    app.close()


def test_a_fatal_task_that_was_dropped_leaves_nothing(redis_url: str, keys: Keys) -> None:
    app = App(redis_url)

    def fail(args: dict[str, int]) -> None:
        raise ValueError("no")

    app.register("fail", fail)
    task = app.queue(QUEUE).enqueue("fail", {})
    app.drain(raises=False)
    app.fatal.drop(task.id)
    assert {key for key in keys.all() if not key.startswith("wake:")} == set()
    app.close()


def test_two_namespaces_on_one_server_dont_see_each_other(redis_server: Found, redis_url: str) -> None:
    with namespaced(redis_server.url) as other_url:
        mine, other = open_broker(redis_url), open_broker(other_url)
        assert mine.enqueue([envelope("a", b"mine"), envelope("m")]) == {}
        assert other.enqueue([envelope("a", b"other")]) == {}

        assert (mine.stats(QUEUE), other.stats(QUEUE)) == (stats(ready=2), stats(ready=1))
        assert other.get(["a", "m"]).keys() == {"a"}
        lease = take_one(other)
        assert lease.envelope.body == b"other"
        assert mine.ack([write(lease)], keep_for=0) == {lease.receipt}
        assert mine.purge(QUEUE) == 2
        assert other.get(["a"])["a"].state is State.LEASED
        assert take(mine, 9) == []
        mine.close()
        other.close()


def test_the_default_namespace_is_apart_from_a_named_one(redis_url: str) -> None:
    named, default = open_broker(redis_url), open_broker(redis_url.partition("?")[0])
    (sent,) = put(named)
    assert default.get([sent]) == {}
    named.close()
    default.close()
