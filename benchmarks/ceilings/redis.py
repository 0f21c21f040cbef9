"""redis-py with hiredis: SET one by one (the yardstick "S"), and in pipelines."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from benchmarks.ceilings.kit import BODY, per_second
from benchmarks.peers.kit import setup
from benchmarks.protocol import reply

_SETS = 5_000
_PIPED = 20_000


def answer(_: Mapping[str, object]) -> Mapping[str, float]:
    """Calls a second by name."""
    with redis.Redis.from_url(setup.url) as client:

        def sets() -> int:
            for _ in range(_SETS):
                client.set("gotasks-bench:set", BODY)
            return _SETS

        def piped() -> int:
            for _ in range(_PIPED // 100):
                pipe = client.pipeline(transaction=False)
                for _ in range(100):
                    pipe.set("gotasks-bench:set", BODY)
                pipe.execute()
            return _PIPED

        before = per_second(sets)
        result = {"SET, pipelined by 100": per_second(piped)}
        return {"SET (S)": (before + per_second(sets)) / 2, **result}


if __name__ == "__main__":
    reply(answer)
