"""A numbered database of its own on a Redis server: emptied before each measurement and at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis

from benchmarks.protocol import reply

#: A database with this key is ours to empty; one without it has to be empty already. It holds the libraries of
#: functions that were not on the server before us.
MARK = "gotasks-bench:mark"


def answer(command: Mapping[str, Any]) -> Mapping[str, Any]:
    """`url`: with the number of a database that is empty, or was ours before; never empties any other.
    `libraries`: of functions, which belong to the whole server; those that weren't there before are deleted after.
    """
    with redis.Redis.from_url(command["url"], decode_responses=True) as client:
        if client.dbsize() and not client.exists(MARK):
            raise ValueError(
                "this Redis database holds other keys; name an empty one, as in redis://host:6379/13"
            )
        ours = set(str(client.get(MARK) or "").split())
        if command["do"] == "remove":
            for library in ours.intersection(_libraries(client)):
                client.function_delete(library)
        client.flushdb(asynchronous=True)  # a million keys take longer than a client waits
        if command["do"] == "reset":
            wanted = command.get("libraries", ())
            new = set(wanted).difference(_libraries(client)) if wanted else set()
            client.set(MARK, " ".join(ours | new))
        return {"url": command["url"], "version": dict(client.info("server"))["redis_version"]}


def _libraries(client: redis.Redis) -> list[str]:
    """The names of the function libraries on the server."""
    found: Any = client.function_list()
    return [dict(zip(each[::2], each[1::2], strict=True))["library_name"] for each in found]


if __name__ == "__main__":
    reply(answer)
