"""Faulty: checkpoints that are lost, torn, doubled, or accepted from the wrong holder."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gotasks.broker import Capability, Lease, State, Write
from gotasks.conformance.faulty import Faulty, faulty
from gotasks.conformance.faulty.writes import ById
from gotasks.memory import _Task


class HandsOff(Faulty):
    """One whose checkpoints end the lease."""

    def __init__(self, capabilities: Capability) -> None:
        super().__init__(capabilities | Capability.HANDOFF)


@faulty("CKP-01")
class UpdateOtherKey(Faulty):
    """Writes checkpoints where nobody reads them."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        self.trip()
        return frozenset(write.lease.receipt for write in writes if self._held(write.lease) is None)


@faulty("CKP-01")
class CheckpointSaysLost(Faulty):
    """A checkpoint is carried out and said to be lost."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        super().checkpoint(writes)
        self.trip()
        return frozenset(write.lease.receipt for write in writes)


@faulty("CKP-05")
class NoFencing(ById):
    """A checkpoint goes by the id of the task, whoever holds it."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().checkpoint(writes)
        for write in writes:
            task = self.former(write)
            if task is not None:
                task.body = write.body
                self.trip()
                lost -= {write.lease.receipt}
        return lost


@faulty("CKP-05")
class FencedInWords(ById):
    """A former holder's checkpoint is said to be lost, and written all the same."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().checkpoint(writes)
        for write in writes:
            task = self.former(write)
            if task is not None:
                task.body = write.body
                self.trip()
        return lost


@faulty("CKP-05")
class FencedInSilence(ById):
    """A former holder's checkpoint isn't written, and nobody is told."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        late = {write.lease.receipt for write in writes if self.former(write)}
        if late:
            self.trip()
        return super().checkpoint(writes) - late


@faulty("CKP-06")
class IndexRegress(Faulty):
    """A checkpoint that was overtaken by a newer one is written all the same."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        for write in writes:
            task = self._held(write.lease)
            if task is not None and write.seq < task.seq:
                task.seq = 0
                self.trip()
        return super().checkpoint(writes)


@faulty("CKP-06")
class OvertakenInSilence(Faulty):
    """A write that was overtaken by a newer one isn't carried out, and nobody is told."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        old = {
            write.lease.receipt
            for write in writes
            if (task := self._held(write.lease)) is not None and write.seq < task.seq
        }
        if old:
            self.trip()
        return super().checkpoint(writes) - old


@faulty("CKP-06")
class OvertakenIsWritten(Faulty):
    """A checkpoint that was overtaken by a newer one is said to be lost, and written all the same."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().checkpoint(writes)
        for write in writes:
            task = self._held(write.lease)
            if task is not None and write.lease.receipt in lost:
                task.body = write.body
                self.trip()
        return lost


@faulty("CKP-07")
class UpdateLeaks(Faulty):
    """Each checkpoint leaves its body behind."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        bodies = vars(self).setdefault("bodies", [])
        bodies += [write.body for write in writes]
        self.trip()
        return super().checkpoint(writes)

    def dump(self) -> dict[str, int]:
        bodies = enumerate(vars(self).get("bodies", []))
        return super().dump() | {f"body-{number}": len(body) for number, body in bodies}


@faulty("CKP-09")
class StaleReceiptKept(HandsOff):
    """A checkpoint that ends the lease leaves its receipt valid."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        former: set[str] = vars(self).setdefault("stale", set())
        stale = {write.lease.receipt for write in writes if write.lease.receipt in former}
        former.update(write.lease.receipt for write in writes)
        if stale:
            self.trip()
        return super().checkpoint(writes) - stale


@faulty("CKP-09")
class HandoffTakesTheNextReceipt(HandsOff):
    """A lost checkpoint under the receipt that a checkpoint ended takes the task from its next holder."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().checkpoint(writes)
        for write in writes:
            if write.lease.receipt in lost:
                self._end_lease(self._tasks[write.lease.envelope.id])
                self.trip()
        return lost


@faulty("CKP-09")
class CheckpointEndsReceipt(Faulty):
    """A checkpoint ends the receipt, and the lease goes on without one."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().checkpoint(writes)
        for write in writes:
            self._tasks[write.lease.envelope.id].receipt = None
            self.trip()
        return lost


@faulty("CKP-09")
class CheckpointCopies(ById):
    """A checkpoint puts a copy into the queue, and the lease goes on."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().checkpoint(writes)
        for write in writes:
            self.copy(write)
            self.trip()
        return lost


@faulty("CKP-10")
class TwoHalves(Faulty):
    """A checkpoint writes the body in two parts, a moment apart."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().checkpoint(writes)
        for write in writes:
            task, half = self._tasks[write.lease.envelope.id], len(write.body) // 2
            time.sleep(0.001)
            if write.lease.receipt not in lost and task.body != write.body:
                task.body = write.body[:half] + task.body[half:]
                self.trip()
        return lost


@faulty("CKP-10")
class SeqReadBefore(Faulty):
    """A checkpoint reads the stored seq, and compares and writes a moment later."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        before = {write: task.seq for write in writes if (task := self._held(write.lease)) is not None}
        time.sleep(0.001 if any(write.seq > 1 for write in writes) else 0.002)
        with self._changed:
            for write, seq in before.items():
                task = self._tasks[write.lease.envelope.id]
                if write.seq > seq:
                    if write.seq < task.seq:
                        self.trip()
                    task.body, task.seq = write.body, write.seq
        return frozenset(write.lease.receipt for write in writes if write not in before)


@faulty("CKP-11")
class CheckpointRenews(Faulty):
    """A checkpoint makes the lease last as long again from now."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        vars(task)["length"] = lease_for
        return super()._lease(task, now, lease_for)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        for write in writes:
            task = self._held(write.lease)
            if task is not None:
                task.until = time.monotonic() + vars(task)["length"]
                self.trip()
        return super().checkpoint(writes)


@faulty("CKP-12")
class SeqOverLeases(Faulty):
    """The stored seq isn't set back when a task is leased again."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        seq = task.seq
        lease = super()._lease(task, now, lease_for)
        task.seq = seq
        if seq and task.state is State.LEASED:
            self.trip()
        return lease
