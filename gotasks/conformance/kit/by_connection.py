"""ByConnection: a good broker whose leases end with their connection, and that tells of no time at which they do.

`memory://?place=NAME`: all objects of one place share it, within this process. Each object is one connection: a
receipt is good through the object that acquired it only, and `close` is the death of all that it holds.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from gotasks.broker import BrokerURL, Capability, Envelope, Lease, QueueStats, Record, State, Write
from gotasks.conformance.adapter import MemoryAdapter
from gotasks.conformance.kit.open_memory import OpenMemory
from gotasks.conformance.kit.wrapped import WrappedBroker
from gotasks.errors import BrokerClosed

if TYPE_CHECKING:
    from typing_extensions import Self

#: What waits looks so often whether its connection was closed. Seconds.
_SLICE = 0.05

#: As long as for ever. Seconds.
_AGES = 1e8

_PLACES: dict[str, OpenMemory] = {}


class ByConnection(WrappedBroker):
    """One connection to a place."""

    inner: OpenMemory

    def __init__(self, place: OpenMemory) -> None:
        super().__init__(place)
        self.capabilities = place.capabilities & ~Capability.TIMED_LEASE | Capability.SHARED
        self._closed = False
        self._mine: dict[str, Lease] = {}
        self._interrupts: dict[str, int] = defaultdict(int)

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        url.only({"place", "handoff"})
        name = url.text("place", "")
        if name not in _PLACES:
            handoff = Capability.HANDOFF if url.boolean("handoff", default=False) else Capability(0)
            _PLACES[name] = OpenMemory(OpenMemory().capabilities | handoff)
        return cls(_PLACES[name])

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        end, interrupts = time.monotonic() + wait, self._interrupts[queue]
        while True:
            self._check()
            left = end - time.monotonic()
            with self.inner._changed:  # noqa: SLF001 - so that a `close` in between finds them
                leases = self.inner.acquire(queue, limit=limit, wait=0, lease_for=_AGES, ids=ids)
                leases = [msgspec.structs.replace(each, deadline=math.inf) for each in leases]
                self._mine.update((each.receipt, each) for each in leases)
                if leases or ids is not None or left <= 0 or interrupts != self._interrupts[queue]:
                    return leases
                self.inner._changed.wait(min(left, _SLICE))  # noqa: SLF001

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        self._check()
        mine, lost = self._split(leases)
        # It isn't for want of an `extend` that a lease ends here.
        return lost | self.inner.extend(mine, lease_for=_AGES)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        mine, lost = self._writes(writes)
        return lost | self.inner.checkpoint(mine)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        mine, lost = self._writes(writes)
        return lost | self.inner.ack(mine, keep_for=keep_for)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        mine, lost = self._writes(writes)
        return lost | self.inner.release(mine)

    def interrupt(self, queue: str) -> None:
        with self.inner._changed:  # noqa: SLF001
            self._interrupts[queue] += 1
            self.inner._changed.notify_all()  # noqa: SLF001

    def close(self) -> None:
        with self.inner._changed:  # noqa: SLF001
            self._closed = True
            for lease in self._mine.values():
                task = self.inner._held(lease)  # noqa: SLF001
                if task is not None and task.state is State.LEASED:
                    task.until, task.receipt = time.monotonic(), None
            self._mine.clear()
            self.inner._changed.notify_all()  # noqa: SLF001

    def after_fork(self) -> None:
        self._mine.clear()  # they are the parent's; `inner` is empty as well

    # -- what an open connection only may ask ---------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self._check()
        return super().enqueue(envelopes)

    def stats(self, queue: str) -> QueueStats:
        self._check()
        return super().stats(queue)

    def purge(self, queue: str) -> int:
        self._check()
        return super().purge(queue)

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        self._check()
        return super().browse(queue, state=state, limit=limit, after=after)

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        self._check()
        return super().get(ids)

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        self._check()
        return super().cancel(ids, keep_for=keep_for)

    # -- how it is done -------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._closed:
            raise BrokerClosed("this connection is closed")

    def _split(self, leases: Iterable[Lease]) -> tuple[list[Lease], frozenset[str]]:
        """Those of this connection, and the receipts of the others."""
        leases = list(leases)
        mine = [each for each in leases if each.receipt in self._mine]
        return mine, frozenset(each.receipt for each in leases if each.receipt not in self._mine)

    def _writes(self, writes: Sequence[Write]) -> tuple[list[Write], frozenset[str]]:
        self._check()
        _, lost = self._split(each.lease for each in writes)
        return [each for each in writes if each.lease.receipt not in lost], lost


class ByConnectionAdapter(MemoryAdapter):
    """For `ByConnection`, in this process."""

    lease = 0.2
    broker_class = ByConnection

    def url(self, namespace: str) -> str:
        return f"{self.broker_url}{'&' if '?' in self.broker_url else '?'}place={namespace}"

    def drop(self, url: str) -> None:
        _PLACES.pop(BrokerURL(url).text("place", ""), None)

    def put_raw(self, url: str, queue: str, data: bytes) -> None:
        _place(url).put_raw(queue, data)

    def evict(self, url: str, task_id: str) -> None:
        _place(url).evict(task_id)

    def dump(self, url: str) -> Mapping[str, int]:
        return _place(url).dump()


def _place(url: str) -> OpenMemory:
    return _PLACES[BrokerURL(url).text("place", "")]
