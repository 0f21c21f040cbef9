"""Faulty: clients that don't end, don't let go, or share what should be apart."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from gotasks.broker import Capability, Envelope, QueueStats, Write
from gotasks.conformance.faulty import Faulty, FaultyClient, faulty


@faulty("CLS-01")
class CloseHangs(Faulty):
    """Closes without a word to the calls that wait."""

    def close(self) -> None:
        self.trip()
        self._closed = True


@faulty("CLS-01")
class CloseOnceOnly(Faulty):
    """Can't be closed a second time."""

    def close(self) -> None:
        if self._closed:
            self.trip()
            raise RuntimeError("it is closed already")
        super().close()


@faulty("CLS-01")
class StatsAfterClose(Faulty):
    """Still counts after it was closed."""

    def stats(self, queue: str) -> QueueStats:
        if self._closed:
            self.trip()
            return QueueStats(ready=0, scheduled=0, leased=0)
        return super().stats(queue)


@faulty("CLS-02")
class LeakThread(Faulty):
    """Leaves a thread of each client behind."""

    def close(self) -> None:
        self.trip()
        threading.Thread(target=threading.Event().wait, args=(15,), daemon=True).start()
        super().close()


_leaked: list[socket.socket] = []


@faulty("CLS-02")
class LeakDescriptor(Faulty):
    """Leaves a descriptor of each client open."""

    def __init__(self, capabilities: Capability) -> None:
        super().__init__(capabilities)
        self.trip()
        _leaked.append(socket.socket())


@faulty("CLS-03")
class GlobalIds(Faulty):
    """Says of an id that is in another place that it is there, and stores it all the same."""

    ids: set[str] = set()  # noqa: RUF012 - that is the fault

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        known = {each.id: each.id for each in envelopes if each.id in self.ids}
        if known:
            self.trip()
        self.ids.update(each.id for each in envelopes)
        return {**super().enqueue(envelopes), **known}


@faulty("CLS-03")
class GlobalKeys(Faulty):
    """Keeps the queues of all places under the same keys."""

    first: dict[str, Any] = {}  # noqa: RUF012 - that is the fault

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        for each in envelopes:
            if each.id not in self._tasks and self.first.setdefault(each.queue, self) is not self:
                self.trip()
                copy = Envelope(id=f"{each.id}-2", queue=each.queue, body=each.body)
                self.first[each.queue].enqueue([copy])
        return super().enqueue(envelopes)


@faulty("CLS-03")
class GlobalPurge(Faulty):
    """Purges this queue in whichever place was used first."""

    first: dict[str, Any] = {}  # noqa: RUF012 - that is the fault

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.first.setdefault(envelopes[0].queue, self)
        return super().enqueue(envelopes)

    def purge(self, queue: str) -> int:
        other = self.first.get(queue, self)
        if other is not self:
            self.trip()
            return Faulty.purge(other, queue)
        return super().purge(queue)


@faulty("CLS-04")
class AckLeavesRecord(Faulty):
    """Keeps a record of what was acked with `keep_for=0`."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self.trip()
        return super().ack(writes, keep_for=keep_for or 60.0)


@faulty("CLS-02")
class LeakConnections(FaultyClient):
    """Forgets a connection that is lying idle instead of closing it."""

    def close(self) -> None:
        with self._lock:
            if self._idle:
                self.trip()
            _leaked.extend(self._idle)
            self._idle.clear()
        super().close()
