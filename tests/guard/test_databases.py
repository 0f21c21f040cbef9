"""What a task costs a database, and the network before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from gotasks.conformance.kit.proxy import Proxy
from tests.guard.budgets import DATABASES
from tests.guard.costs import Costs, keep
from tests.guard.statements import Statements
from tests.guard.ways import Ways

_PORTS = {"postgresql": 5432, "mariadb": 3306}


@pytest.mark.timeout(300)  # each transaction waits for a disk that may be busy
@pytest.mark.parametrize("database", ["sqlite", *_PORTS])
def test_a_task_costs_no_more_than_it_did(
    request: pytest.FixtureRequest, database: str, figures: Callable[[str], None]
) -> None:
    url = request.getfixturevalue(f"{database}_url")
    with _watched(url, database) as (through, passed), Statements() as counts:
        ways = Ways(through)

        def count(way: Callable[[], None]) -> Costs:
            statements, transactions, before = counts.statements, counts.transactions, passed()
            way()
            return {
                "statements": counts.statements - statements,
                "transactions": counts.transactions - transactions,
                **{what: bytes_ - before[what] for what, bytes_ in passed().items()},
            }

        measured = ways.counted(count)
        ways.app.close()
    keep(database, measured, DATABASES.get(database, {}), figures)


@contextmanager
def _watched(url: str, database: str) -> Iterator[tuple[str, Callable[[], Mapping[str, int]]]]:
    """A URL that leads there, and how many bytes have gone that way; none where there is no network."""
    if database not in _PORTS:
        yield url, dict
        return
    parts = urlsplit(url)
    with Proxy(parts.hostname or "127.0.0.1", parts.port or _PORTS[database]) as proxy:
        names = {"bytes sent": "requests", "bytes received": "replies"}
        yield (
            proxy.through(url),
            lambda: {
                what: count
                for what, way in names.items()
                for each, count in proxy.passed.items()
                if each == way
            },
        )
