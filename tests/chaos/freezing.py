"""FreezingBroker: the Redis broker, where something comes at the worst moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection, Sequence

from gotasks.broker import Lease, Write
from gotasks_redis import RedisBroker
from gotasks_redis.connections import Connections
from gotasks_redis.keys import Keys
from tests.chaos.history import Writer


class FreezingBroker(RedisBroker):
    """Right before its first write of one kind is sent, the process stops itself (SIGSTOP).

    So the write is late for sure, whatever the other threads do after SIGCONT. Each write of that kind that the
    server refuses is noted in the history. Of the kind "acquire" it's the reply that is late: the first tasks
    arrive when the worker stops.
    """

    kind = ""  #: checkpoint, ack, release or acquire
    history: Writer | None = None
    _done = False

    def __init__(self, connections: Connections, keys: Keys) -> None:
        super().__init__(connections, keys)
        self._stopped = threading.Event()

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        if self.kind == "acquire" and leases:
            assert self._stopped.wait(60), "nobody has stopped the worker"
        return leases

    def interrupt(self, queue: str) -> None:
        self._stopped.set()
        super().interrupt(queue)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        return self._late("checkpoint", writes, lambda: super(FreezingBroker, self).checkpoint(writes))

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        return self._late("ack", writes, lambda: super(FreezingBroker, self).ack(writes, keep_for=keep_for))

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        return self._late("release", writes, lambda: super(FreezingBroker, self).release(writes))

    def _late(self, kind: str, writes: Sequence[Write], send: Callable[[], frozenset[str]]) -> frozenset[str]:
        if kind == self.kind and not self._done:
            self._done = True
            # To this thread, so that not one instruction follows before the process stands.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        lost = send()
        if kind == self.kind and self.history is not None:
            for write in writes:
                if write.lease.receipt in lost:
                    self.history.write("refused", task=write.lease.envelope.id, note=kind)
        return lost
