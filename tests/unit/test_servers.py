"""The tests' own ground: which server they find, and that they leave it as it was."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import docker_engine, rabbit_server
from tests import redis_server as redis_module
from tests import servers as table
from tests.redis_server import PrivateRedis, delete_namespace, namespaced
from tests.resp import Resp, RespError
from tests.servers import Found, SecretURL, Server, Servers


@pytest.fixture
def find(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[..., Found]]:
    """Look for a made-up server, of which only the named ways lead to one."""
    opened: list[Servers] = []

    def look(*there: str, **environ: str) -> Found:
        def answers(url: str) -> str:
            if url.partition("://")[2] not in there:
                raise ConnectionRefusedError("nobody there")
            return "1.0"

        @contextmanager
        def private(directory: Path) -> Iterator[str]:
            yield "toy://private"

        toy = Server(
            name="toy",
            port=1,
            docker_url="toy://docker",
            local_url="toy://local",
            answers=answers,
            private=private,
        )
        monkeypatch.setitem(table.SERVERS, "toy", toy)
        monkeypatch.setattr(docker_engine, "start", lambda server, request: server.docker_url)
        opened.append(Servers(directory=lambda name: tmp_path, environ=environ))
        return opened[-1].find("toy", request)

    yield look
    for each in opened:
        each.close()


def test_ways_are_tried_in_order(find: Callable[..., Found]) -> None:
    everywhere = ("given", "docker", "local", "private")

    assert (
        str(find(*everywhere, GOTASKS_TEST_TOY_URL="toy://given"))
        == "toy 1.0 at given (GOTASKS_TEST_TOY_URL)"
    )
    assert str(find(*everywhere)) == "toy 1.0 at docker (container)"
    assert str(find("local", "private")) == "toy 1.0 at local (standard port)"
    assert str(find("private")) == "toy 1.0 at private (private)"


def test_skip_names_what_was_tried(find: Callable[..., Found]) -> None:
    with pytest.raises(pytest.skip.Exception) as skipped:
        find()

    assert str(skipped.value) == (
        "no toy server: GOTASKS_TEST_TOY_URL isn't set; container: nobody there; standard port: nobody there; "
        "private: nobody there"
    )


def test_required_server_fails_instead(find: Callable[..., Found]) -> None:
    with pytest.raises(pytest.fail.Exception, match="GOTASKS_REQUIRE names toy, but there is no toy server"):
        find(GOTASKS_REQUIRE="redis, toy")


def test_named_server_must_answer(find: Callable[..., Found]) -> None:
    with pytest.raises(pytest.fail.Exception, match="names given:1, which can't be used: nobody there"):
        find("local", GOTASKS_TEST_TOY_URL="toy://me:secret@given:1")


def test_unknown_name_is_refused() -> None:
    with pytest.raises(pytest.UsageError, match="GOTASKS_REQUIRE names rediss; the tests know redis"):
        table.required({"GOTASKS_REQUIRE": "redis,rediss"})


def test_url_hides_its_password() -> None:
    url = SecretURL("redis://me:secret@host:1/0?namespace=x")

    assert repr(url) == "'redis://me:***@host:1/0?namespace=x'"
    assert str(url) == "redis://me:secret@host:1/0?namespace=x"


def test_only_own_namespace_is_deleted(redis_server: Found, redis_url: str) -> None:
    own = redis_url.partition("namespace=")[2]
    with Resp(redis_server.url) as server:
        for number in range(2500):  # more than one SCAN returns
            server.call("SET", f"{{{own}}}:{number}", "")
        server.call("SET", f"{own}:foreign", "", "EX", "60")
        with namespaced(redis_server.url) as other:
            server.call("SET", f"{{{other.partition('namespace=')[2]}}}:x", "")

            assert delete_namespace(redis_server.url, own) == 2500
            assert delete_namespace(redis_server.url, own) == 0

            assert server.call("DEL", f"{own}:foreign") == 1
            assert server.call("EXISTS", f"{{{other.partition('namespace=')[2]}}}:x") == 1


def test_private_redis_comes_back_on_its_port(private_redis: Callable[..., PrivateRedis]) -> None:
    redis = private_redis(appendonly="yes", appendfsync="always")
    url = redis.url
    with Resp(url) as server:
        server.call("SET", "kept", "yes")

    os.kill(redis.pid, signal.SIGKILL)
    redis.restart()
    redis.kill()
    with pytest.raises(ConnectionRefusedError):
        Resp(url)
    redis.start()

    assert redis.url == url
    with Resp(url) as server:
        assert server.call("GET", "kept") == b"yes"


def test_connection_logs_in(private_redis: Callable[..., PrivateRedis]) -> None:
    redis = private_redis(maxmemory="10mb")
    with Resp(redis.url) as server:
        server.call("CONFIG", "SET", "requirepass", "a:b")

    with Resp(redis.url.replace("//", "//:a%3Ab@")) as server:
        assert server.call("CONFIG", "GET", "maxmemory") == [b"maxmemory", b"10485760"]
    with pytest.raises(RespError, match="NOAUTH"):
        Resp(redis.url)


def test_who_isnt_there_is_told_in_words() -> None:
    with pytest.raises(ConnectionError, match="refused"):
        rabbit_server.answers("amqp://127.0.0.1:1/")


def test_connection_knows_what_is_not_redis() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        probe = pool.submit(redis_module.answers, f"redis://127.0.0.1:{listener.getsockname()[1]}")
        with listener.accept()[0] as stranger:
            stranger.sendall(b"220 mail.example ESMTP\r\n")
            with pytest.raises(RespError, match="isn't Redis"):
                probe.result(timeout=10)
