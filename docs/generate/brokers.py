"""Brokers: what each can do, as it says itself, and how fast each was, as tables in a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from benchmarks.results import Results
from gotasks.broker import Broker, Capability
from gotasks.discovery import open_broker

#: A column each. None of these URLs is connected to.
BROKERS = {
    "memory": "memory://",
    "SQLite": "sqlite:///tasks.db",
    "PostgreSQL": "postgresql+psycopg://localhost/shop",
    "MySQL, MariaDB": "mariadb+pymysql://localhost/shop",
    "Redis": "redis://localhost",
    "RabbitMQ": "amqp://localhost",
    "RabbitMQ with Redis": "amqp://localhost/?records=redis%3A%2F%2Flocalhost",
}

#: What a capability gives to a program.
MEANS = {
    Capability.DELAY: "`delay=`; long pauses between retries leave the slot",
    Capability.PRIORITY: "`priority=`",
    Capability.IDEMPOTENT: "`task_id=`; an enqueue is repeated after a lost answer",
    Capability.UNIQUE: "`unique=`",
    Capability.RECORDS: "`status`, `wait`, `task_ttl`",
    Capability.BROWSE: "`gotasks fatal` looks without taking tasks",
    Capability.CANCEL: "`cancel`",
    Capability.TRANSACTIONAL: "`connection=`, see [Transactions](transactions.md)",
    Capability.ATOMIC_MOVE: "a move to the fatal queue is one write",
    Capability.TIMED_LEASE: "a lease ends by time; else with its connection",
    Capability.SHARED: "several processes",
    Capability.HANDOFF: "a checkpoint puts the task to the end of its queue",
}

#: A row each: what it is called, and how a limit is shown.
LIMITS: dict[str, Callable[[Broker], str]] = {
    "a task's size, at most": lambda broker: _bytes(broker.limits.max_payload),
    "tasks in one call": lambda broker: str(broker.limits.max_batch),
    "`delay=`, at most": lambda broker: (
        _seconds(broker.limits.max_delay) if Capability.DELAY in broker.capabilities else "none"
    ),
    "a task may be held for": lambda broker: _seconds(broker.limits.max_lease),
    "offered again after a lease's end, in": lambda broker: f"{broker.limits.recovery:g} s",
    "first in, first out": lambda broker: "yes" if broker.limits.fifo else "no",
    "where a task comes back to": lambda broker: broker.limits.returned,
    "confirmed tasks outlive": lambda broker: _OUTLIVE[broker.limits.durability],
    "copies after a server's crash": lambda broker: broker.limits.server_crash_duplicates,
}

_OUTLIVE = {"none": "nothing", "restart": "a restart", "kill": "a kill"}

#: A column each: the name in the results, and the figures' names and titles as rows.
MEASURED = {"sqlite": "SQLite", "postgres": "PostgreSQL", "redis": "Redis", "rabbitmq": "RabbitMQ"}
FIGURES = {
    "enqueue": "enqueue, one by one, a second",
    "bulk": "enqueue_many, tasks a second",
    "drain": "tasks a second, one worker of 10 slots",
    "chains": "chains of three, steps a second",
    "latency-p50": "idle worker: from enqueue to start, median ms",
    "latency-p99": "the same, 99th percentile, ms",
}

_MARK = "<!-- Made by `python -m docs.generate`: {}. -->"
_END = "<!-- Made until here. -->"


def renewed(page: str, results: Path) -> str:
    """The page with these tables in their places. Raises ValueError if it lacks one."""
    with ExitStack() as stack:
        brokers = [stack.enter_context(closing(open_broker(url))) for url in BROKERS.values()]
        tables = {
            "capabilities": capabilities(brokers),
            "meanings": meanings(),
            "limits": limits(brokers),
            "rates": rates(Results.load(results)),
        }
    for name, table in tables.items():
        mark = _MARK.format(name)
        before, begin, rest = page.partition(mark)
        _, end, after = rest.partition(_END)
        if not begin or not end:
            raise ValueError(f"the page has no place for the {name}: put {mark} and {_END} into it")
        page = f"{before}{mark}\n\n{table}\n\n{_END}{after}"
    return page


def capabilities(brokers: Sequence[Broker]) -> str:
    """A row each capability, a column each broker."""
    rows = [
        [f"{each.name}", *("yes" if each in broker.capabilities else "" for broker in brokers)]
        for each in Capability
    ]
    return _table(["", *BROKERS], rows)


def meanings() -> str:
    """What each capability is good for."""
    return _table(["capability", "what it gives"], [[f"{each.name}", means] for each, means in MEANS.items()])


def limits(brokers: Sequence[Broker]) -> str:
    """A row each limit, a column each broker."""
    return _table(["", *BROKERS], [[title, *map(shown, brokers)] for title, shown in LIMITS.items()])


def rates(results: Results) -> str:
    """What was measured of gotasks, a column each server."""
    versions = results.about["servers"]
    head = [f"{title} {versions[server].partition(' ')[0]}" for server, title in MEASURED.items()]
    rows = [
        [title, *(_figure(results, server, name) for server in MEASURED)] for name, title in FIGURES.items()
    ]
    return _table(["", *head], rows, numbers=True)


def _figure(results: Results, server: str, name: str) -> str:
    spread = results.spread(server, "gotasks", name)
    if spread is None:
        return ""
    # A narrow no-break space, as in the benchmarks' tables: thousands stay together on a phone.
    return f"{spread.median:,.0f}".replace(",", "\u202f") if spread.median >= 100 else f"{spread.median:.1f}"


def _bytes(value: int | None) -> str:
    return "as the app says" if value is None else f"{value / 2**20:g} MiB"


def _seconds(value: float | None) -> str:
    if value is None:
        return "any time"
    return f"{value / 86_400 / 365:g} years" if value >= 86_400 * 365 else f"{value:g} s"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    rule = ["---", *(["---:" if numbers else "---"] * (len(head) - 1))]
    return "\n".join(f"| {' | '.join(each)} |" for each in (head, rule, *rows))
