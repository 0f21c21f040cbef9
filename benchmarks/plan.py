"""The plan: which peer does which workload, round by round, so that what disturbs the machine disturbs all alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.catalogue import Peer
from benchmarks.workload import Workload
from benchmarks.workloads import WORKLOADS


@dataclass(frozen=True)
class Step:
    """One measurement. Without a peer it is the ceilings of the server."""

    round: int  #: from 1
    server: str
    peer: Peer | None = None
    workload: Workload | None = None

    @property
    def what(self) -> str:
        """The measurement, which is the same in each round."""
        what = f"{self.peer.name} {self.workload.name}" if self.peer and self.workload else "ceilings"
        return f"{self.server}: {what}"

    def __str__(self) -> str:
        return f"round {self.round}, {self.what}"


def workloads(names: Sequence[str]) -> list[Workload]:
    """Those of these names, all if none is given. Raises ValueError on an unknown one."""
    known = {workload.name: workload for workload in WORKLOADS}
    for name in names:
        if name not in known:
            raise ValueError(f"no workload {name!r}: {', '.join(known)}")
    return [workload for workload in WORKLOADS if not names or workload.name in names]


def plan(peers: Sequence[Peer], work: Sequence[Workload], rounds: int, *, ceilings: bool) -> Iterator[Step]:
    """Every round, and server after server in it: the ceilings, then A B C of one workload, A B C of the next.

    A workload that is done once is in the first round.
    """
    servers = list(dict.fromkeys(peer.server for peer in peers))
    for number in range(1, rounds + 1):
        for server in servers:
            if ceilings:
                yield Step(number, server)
            for workload in work:
                for peer in peers:
                    if peer.server == server and workload.is_for(peer) and (number == 1 or not workload.once):
                        yield Step(number, server, peer, workload)
