"""The peers: what is installed for each, at which version, and how it is configured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: The servers, in the order in which they are measured and shown.
SERVERS = ("sqlite", "postgres", "redis", "rabbitmq")

#: What stands for the checkout in `packages`.
CHECKOUT = "gotasks"

#: For the places and the ceilings. sqlite3 comes with Python.
CLIENTS = ("redis==8.1.0", "hiredis==3.5.0", "psycopg[binary]==3.3.9", "pika==1.4.4")

_HIREDIS = "hiredis==3.5.0"  # the C parser, for everyone who uses redis-py
_REDIS = "redis==8.1.0"


@dataclass(frozen=True)
class Peer:
    """One system on one server, in one configuration. `name` and `server` together are its identity."""

    name: str  #: as in --peers and in the tables
    server: str
    script: str  #: a module of `benchmarks.peers`
    packages: tuple[str, ...]  #: requirements of its venv; the first is the system itself
    options: dict[str, Any] = field(default_factory=dict)  #: for its script
    concurrency: int = 10  #: handlers at once in a worker process; 1 where the peer can't do more
    share: float = 1.0  #: of --tasks in a drain: slow peers get fewer, so that a run ends
    at_most_once: bool = False  #: loses the tasks that a crashed worker held
    note: str = ""  #: what a reader of the table has to know
    leaves: dict[str, tuple[str, ...]] = field(
        default_factory=dict
    )  #: by kind and name, for the place to remove

    @property
    def key(self) -> tuple[str, str]:
        """Its identity."""
        return self.server, self.name

    @property
    def label(self) -> str:
        """The name and the version, and whether it loses tasks."""
        version = "" if self.packages[0] == CHECKOUT else " " + self.packages[0].rpartition("==")[2]
        return f"{self.name}{version}{' (amo)' if self.at_most_once else ''}"


def _gotasks(server: str, *queues: str) -> tuple[Peer, Peer]:
    ours, leaves = (CHECKOUT,), {"queues": queues} if queues else {}
    return (
        Peer("gotasks", server, "gotasks", ours, leaves=leaves),
        Peer("gotasks-100", server, "gotasks", ours, concurrency=100, note="100 slots", leaves=leaves),
    )


#: What ours leaves on RabbitMQ: tasks of the queue and of the fatal queue, and what wakes who waits for them.
_OURS = tuple(
    f"gotasks-bench:{queue}{what}" for queue in ("gotasks-bench", "fatal") for what in ("", ":wake")
)

_HUEY = ("huey==3.5.4", _REDIS, _HIREDIS)
# Its `pgq run` fails with the typer of today (0.29): "'str' object has no attribute 'name'".
_PGQUEUER = ("pgqueuer==1.6.0", "asyncpg==0.32.0", "typer==0.24.0")
_DRAMATIQ = ("dramatiq[redis,rabbitmq]==2.2.1", _REDIS, _HIREDIS, "pika==1.4.4")
_CELERY = ("celery[redis]==5.7.0", "kombu==5.7.0", "amqp==5.4.2", _REDIS, _HIREDIS)
#: What its worker makes as soon as it works on a quorum queue, for tasks with a delay.
_CELERY_DELAYS = tuple(f"celery_delayed_{level}" for level in range(28))
_TASKIQ = (
    "taskiq==0.13.0",
    "taskiq-redis==1.2.4",
    "taskiq-aio-pika==0.6.1",
    "taskiq-pipelines==0.1.4",
    "aio-pika==10.2.1",
    _REDIS,
    _HIREDIS,
)
# It wants redis-py before 8, and imports typing_extensions without asking for it.
_SAQ = ("saq[redis,hiredis]==0.26.4", "redis==7.4.1", _HIREDIS, "typing_extensions==4.16.0")
_ARQ = ("arq==0.28.0", "redis==5.3.1", _HIREDIS)  # it wants redis-py before 6
_RQ = ("rq==3.0.0", _REDIS, _HIREDIS)
_STREAQ = ("streaq==7.2.0", "coredis==6.9.0")

PEERS: tuple[Peer, ...] = (
    *_gotasks("sqlite"),
    Peer("huey", "sqlite", "huey", _HUEY, at_most_once=True, note="no results stored"),
    *_gotasks("postgres"),
    Peer("pgqueuer-10", "postgres", "pgqueuer", _PGQUEUER, {"batch": 10}, note="batch 10, no other limit"),
    Peer("pgqueuer-100", "postgres", "pgqueuer", _PGQUEUER, {"batch": 100}, note="batch 100, no other limit"),
    Peer(
        "pgqueuer-limit",
        "postgres",
        "pgqueuer",
        _PGQUEUER,
        {"batch": 10, "limit": 10},
        note="batch 10, concurrency_limit 10 (of all workers together)",
    ),
    Peer(
        "procrastinate",
        "postgres",
        "procrastinate",
        ("procrastinate==3.10.0", "psycopg[binary]==3.3.9"),
        share=0.15,
        note="done jobs deleted",
    ),
    *_gotasks("redis"),
    Peer("dramatiq", "redis", "dramatiq", _DRAMATIQ),
    Peer("taskiq", "redis", "taskiq", _TASKIQ, {"broker": "stream"}, note="streams"),
    Peer("taskiq-list", "redis", "taskiq", _TASKIQ, {"broker": "list"}, at_most_once=True, note="lists"),
    Peer("saq", "redis", "saq", _SAQ, share=0.5),
    Peer("huey", "redis", "huey", _HUEY, at_most_once=True, note="no results stored"),
    Peer("celery", "redis", "celery", _CELERY, share=0.25, note="acks_late, threads"),
    Peer("streaq", "redis", "streaq", _STREAQ, share=0.25, leaves={"libraries": ("streaq",)}),
    Peer("arq", "redis", "arq", _ARQ, share=0.1),
    Peer(
        "rq", "redis", "rq", _RQ, {"worker": "Worker"}, concurrency=1, share=0.02, note="forks for each job"
    ),
    Peer(
        "rq-simple", "redis", "rq", _RQ, {"worker": "SimpleWorker"}, concurrency=1, share=0.1, note="no fork"
    ),
    *_gotasks("rabbitmq", *_OURS),
    Peer(
        "dramatiq",
        "rabbitmq",
        "dramatiq",
        _DRAMATIQ,
        note="publisher confirms, a classic queue (it has no other)",
        leaves={"queues": ("gotasks-bench", "gotasks-bench.DQ", "gotasks-bench.XQ")},
    ),
    Peer(
        "taskiq",
        "rabbitmq",
        "taskiq",
        _TASKIQ,
        {"broker": "amqp"},
        note="publisher confirms, a quorum queue",
        leaves={
            "queues": ("gotasks-bench", "gotasks-bench.dead_letter"),
            "exchanges": ("gotasks-bench",),
        },
    ),
    Peer(
        "celery",
        "rabbitmq",
        "celery",
        _CELERY,
        share=0.5,
        note="acks_late, threads, publisher confirms, a classic queue",
        leaves={"queues": ("gotasks-bench",), "exchanges": ("gotasks-bench",)},
    ),
    Peer(
        "celery-quorum",
        "rabbitmq",
        "celery",
        _CELERY,
        {"queue_type": "quorum"},
        share=0.5,
        note="acks_late, threads, publisher confirms, a quorum queue",
        leaves={
            "queues": ("gotasks-bench", *_CELERY_DELAYS),
            "exchanges": ("gotasks-bench", "celery_delayed_delivery", *_CELERY_DELAYS),
        },
    ),
)


def chosen(servers: list[str], names: list[str]) -> list[Peer]:
    """The peers of these servers, of these names if any are given, in the catalogue's order.

    Raises ValueError on a name that no server has.
    """
    for name in names:
        if name not in {peer.name for peer in PEERS}:
            raise ValueError(f"no peer {name!r}: {', '.join(dict.fromkeys(peer.name for peer in PEERS))}")
    return [
        peer
        for server in SERVERS
        if server in servers
        for peer in PEERS
        if peer.server == server and (not names or peer.name in names)
    ]
