"""Workload: work that is done on a stand, and the figures that it yields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.catalogue import Peer
from benchmarks.record import rate
from benchmarks.stand import Stand


@dataclass(frozen=True)
class Figure:
    """A number that a workload yields: how it is shown, and which way is better."""

    name: str
    title: str  #: the head of its column
    digits: int = 0
    lower: bool = False  #: whether less is better


@dataclass(frozen=True)
class Workload:
    """`tasks`: how many, of --tasks and the peer's share. `measure`: the work, with the figures that could be had."""

    name: str
    figures: tuple[Figure, ...]
    tasks: Callable[[int, float], int]
    measure: Callable[[Stand, int], dict[str, float]]
    steps: int = 1  #: starts a task
    extra: int = 0  #: tasks beyond `tasks`, such as those that warm up
    peers: tuple[str, ...] = ()  #: those that it is for; none: all
    servers: tuple[str, ...] = ()  #: likewise
    once: bool = False  #: in the first round only: it takes long, and has its comparison in itself

    def is_for(self, peer: Peer) -> bool:
        """Whether it is measured of this one."""
        return (not self.peers or peer.name in self.peers) and (
            not self.servers or peer.server in self.servers
        )


def drained(
    stand: Stand,
    job: str,
    tasks: int,
    processes: int,
    *,
    steps: int = 1,
    first: int = 0,
    carry: int = 0,
    burst: int = 0,
) -> float:
    """Starts a second on a backlog. The tasks are all there first; in the end all have run and none is left.

    They are numbered from `first` on, and carry so many bytes more. `burst`: see `rate`.
    """
    fill(stand, job, tasks, first=first, carry=carry)
    cells = range(first * steps, (first + tasks) * steps)
    with stand.worker(processes) as worker:
        stand.until_started(worker, cells.stop)
        stand.settle()
    stand.settle()  # nothing comes back when the worker has gone
    return rate(stand.record.starts(cells), processes, burst=burst)


def fill(stand: Stand, job: str, tasks: int, *, first: int = 0, carry: int = 0) -> None:
    """Enqueue tasks in the fastest way that the peer has. Those that carry something go in calls of a few MiB."""
    if carry:
        stand.bulk(job, tasks, first=first, batch=max(1, min(1000, _CALL // carry)), carry=carry)
    else:
        stand.fill(job, tasks, first=first)


#: Bytes that one call carries.
_CALL = 4 * 1024 * 1024


def scaled(part: float) -> Callable[[int, float], int]:
    """`part` of --tasks times the peer's share, at least 50."""
    return lambda tasks, share: max(50, round(tasks * share * part))
