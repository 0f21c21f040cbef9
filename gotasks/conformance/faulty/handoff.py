"""Faulty: checkpoints that claim to hand on and don't, or hand on twice."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import msgspec

from gotasks.broker import Capability, Lease, Write
from gotasks.conformance.faulty import Faulty, faulty
from gotasks.memory import _ALL


class _Handoff(Faulty):
    """A broker whose checkpoints end the lease."""

    def __init__(self, capabilities: Capability = _ALL) -> None:
        super().__init__(capabilities | Capability.HANDOFF)


@faulty("HND-01", "HND-02")
class OverClaimHandoff(_Handoff):
    """Claims HANDOFF, and a checkpoint leaves the task with its holder."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        self.trip()

        def keep(task: object, write: Write) -> None:
            self._tasks[write.lease.envelope.id].body = write.body

        return self._write(writes, keep)


@faulty("HND-01")
class HandoffKeepsReceipt(_Handoff):
    """The old receipt goes on being answered as if it held."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        if super().checkpoint(writes):
            self.trip()
        return frozenset()


@faulty("HND-01")
class HandsOnOldBody(_Handoff):
    """What is handed on is the body that the holder got."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        self.trip()
        return super().checkpoint(
            [msgspec.structs.replace(each, body=each.lease.envelope.body) for each in writes]
        )


@faulty("HND-02")
class HandoffTwice(_Handoff):
    """What was handed on is offered to two."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        for each in leases:
            if each.envelope.body == b"3" and not each.deaths:
                self.trip()
                self._tasks[each.envelope.id].until = 0.0
        time.sleep(0.002)
        return leases
