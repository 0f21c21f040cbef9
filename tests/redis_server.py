"""Redis for the tests: is one there, a namespace to work in, a private one to stop and kill."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from gotasks.conformance.server_process import free_port
from gotasks_redis.conformance import BINARIES, PrivateRedis
from tests.resp import Reply, Resp

__all__ = [
    "BINARIES",
    "PrivateRedis",
    "answers",
    "ask",
    "delete_namespace",
    "field",
    "free_port",
    "namespaced",
    "private",
]


def answers(url: str) -> str:
    """Return the version of the server at this URL. Raises OSError or RespError where none can be used."""
    with Resp(url) as server:
        server.call("PING")
        info = server.call("INFO", "server")
    lines = info.decode().splitlines() if isinstance(info, bytes) else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    if "valkey_version" in fields:
        return f"{fields['valkey_version']} (Valkey)"
    return fields.get("redis_version", "of unknown version")


@contextmanager
def namespaced(url: str) -> Iterator[str]:
    """Give a URL whose namespace nobody else uses; afterwards delete the keys of this namespace, and only these."""
    namespace = f"test-{secrets.token_hex(8)}"
    parts = urlsplit(url)
    params = [(name, value) for name, value in parse_qsl(parts.query) if name != "namespace"]
    try:
        yield urlunsplit(parts._replace(query=urlencode([*params, ("namespace", namespace)])))
    finally:
        delete_namespace(url, namespace)


def delete_namespace(url: str, namespace: str) -> int:
    """Delete all keys `{namespace}:...` of a server that others may use too; return how many there were."""
    deleted = 0
    with Resp(url) as server:
        cursor: bytes = b"0"
        while True:
            reply = server.call("SCAN", cursor, "MATCH", f"{{{namespace}}}:*", "COUNT", "1000")
            assert isinstance(reply, list), reply
            after, keys = reply
            assert isinstance(after, bytes), reply
            assert isinstance(keys, list), reply
            if keys:
                count = server.call("UNLINK", *[key for key in keys if isinstance(key, bytes)])
                deleted += count if isinstance(count, int) else 0
            cursor = after
            if cursor == b"0":
                return deleted


@contextmanager
def private(directory: Path) -> Iterator[str]:
    """Run a server of our own on a free port for as long as the context lasts; give its URL."""
    server = PrivateRedis(directory)
    try:
        yield server.start().url
    finally:
        server.kill()


def ask(url: str, *words: str | bytes) -> Reply:
    """Ask a server one thing. Raises OSError or RespError."""
    with Resp(url) as server:
        return server.call(*words)


def field(url: str, section: str, name: str) -> str:
    """One line of what `INFO` says; empty if there is none."""
    info = ask(url, "INFO", section)
    assert isinstance(info, bytes)
    fields = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    return fields.get(name, "")
