"""Play: the steps of a random run on a broker, each with what the model says of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

from gotasks.broker import Broker, Capability, Lease, State, Write
from gotasks.conformance.kit.model import Impossible, Model, Where
from gotasks.conformance.kit.proxy import Proxy
from gotasks.conformance.kit.traffic import Direction
from gotasks.conformance.scene import LONG, Scene
from gotasks.errors import BrokerUnavailable

T = TypeVar("T")

#: A write under a lease.
Kind = Literal["checkpoint", "ack", "release"]

#: Where to cut the connection in the middle of a call: in which direction, and after how many bytes.
Cut = tuple[Direction, int]

_LIVE = (Where.READY, Where.SCHEDULED, Where.HELD, Where.OVER)

#: So many tasks live at once: more would only dilute what is done to each.
_MOST = 5

#: However slow the machine: what was sent on a connection that was cut has arrived after this. Seconds.
_ARRIVES = 0.5


class Chosen(NamedTuple):
    """What was drawn for a step. Each takes what it needs, and numbers choose among what there is."""

    client: int  #: 0 or 1
    queue: int  #: 0 or 1
    which: int
    kind: Kind
    flag: bool
    rare: bool  #: seldom true
    cut: Cut | None


class Play:
    """One run, in two queues of its own, by two clients. What isn't possible at a moment is left out.

    `proxy`: where calls are cut; the clients lead through it.
    """

    def __init__(self, it: Scene, clients: list[Broker], proxy: Proxy | None = None) -> None:
        self._it, self._clients, self._proxy = it, clients, proxy
        self._model = Model(it.capabilities)
        self._timed = it.claims(Capability.TIMED_LEASE)
        self._queues = (it.name("a"), it.name("b"))
        self._bodies = itertools.count(1)
        self._leases: list[Lease] = []  #: all that were taken, those that don't hold any more too
        self._by: dict[str, int] = {}  #: receipt → the client that took it
        self._sent: dict[str, list[tuple[Kind, Write]]] = {}  #: under each receipt
        self._broken = False  #: the connection was cut in the last call, if only after its answer
        self._open_until = 0.0  #: what was sent with an unknown outcome may arrive until then
        self._keep_for = LONG if it.claims(Capability.RECORDS) else 0.0

    # -- steps ----------------------------------------------------------------------------------------

    def enqueue(self, chosen: Chosen) -> None:
        """A new task; at times one whose id is there already, perhaps."""
        known = self._model.ids
        task_id = None
        if (chosen.rare or chosen.which > 5) and known and self._it.claims(Capability.IDEMPOTENT):
            task_id = known[-1 - chosen.which % len(known)]
        elif len(self._there(*_LIVE)) >= _MOST:
            return
        envelope = self._it.envelope(
            self._body(),
            queue=self._queues[chosen.queue],
            task_id=task_id,
            delay=self._delay(chosen.which == 0),
        )
        client = self._clients[chosen.client]
        self._model.enqueue(envelope, self._call(chosen.cut, lambda: client.enqueue([envelope])))

    def acquire(self, chosen: Chosen) -> None:
        """Whatever is there, and most likely there is something; what a dead holder left is waited for."""
        if not chosen.rare and not self._there(Where.READY, Where.OVER):
            self.enqueue(chosen)
        queue, client = self._queue(chosen, Where.READY, Where.OVER), self._clients[chosen.client]
        limit = 1 + chosen.which % 3
        ready = self._model.surely(queue, Where.READY)
        # Cut calls leave much behind: waiting for all of it would take long. `finish` does.
        waited = not ready and bool(self._model.surely(queue, Where.OVER)) and self._proxy is None
        wait = self._it.lease + self._it.grace if waited else 0.0
        # A lease of which nobody is told must end soon.
        lease_for = LONG if chosen.cut is None else self._it.lease
        leases = self._call(
            chosen.cut,
            lambda: self._it.take(limit, by=client, queue=queue, wait=wait, lease_for=lease_for),
        )
        if leases is not None and len(leases) > limit:
            raise Impossible(f"acquire(limit={limit}) gave {len(leases)} leases")
        self._model.acquire(queue, leases, waited=waited)
        self._keep(chosen.client, leases or [], extend=chosen.cut is not None)

    def acquire_one(self, chosen: Chosen) -> None:
        """By its id, due or not."""
        known = self._model.ids
        if not known or not self._it.claims(Capability.BROWSE):
            return
        queue, client = self._queues[chosen.queue], self._clients[chosen.client]
        ids = [known[-1 - chosen.which % len(known)]]
        lease_for = LONG if chosen.cut is None else self._it.lease
        leases = self._call(
            chosen.cut, lambda: self._it.take(by=client, queue=queue, ids=ids, lease_for=lease_for)
        )
        self._model.acquire(queue, leases, ids=ids)
        self._keep(chosen.client, leases or [], extend=chosen.cut is not None)

    def crash(self, chosen: Chosen) -> None:
        """The second client takes some, if there are any, and dies; most likely the next one goes on with them."""
        if not self._there(Where.READY):
            self.enqueue(chosen)
        queue = self._queue(chosen, Where.READY)
        if not self._model.surely(queue, Where.READY) or (
            not self._timed and self._clients[1] is self._clients[0]
        ):
            return
        leases = self._it.take(
            1 + chosen.which % 3, by=self._clients[1], queue=queue, lease_for=self._it.lease
        )
        self._model.acquire(queue, leases)
        self._keep(1, leases, extend=False)
        self._it.abandon(leases, by=self._clients[1])
        if not self._timed:
            leases = [each for each in self._leases if self._by[each.receipt] == 1]
            self._clients[1] = self._it.client()
        for lease in leases:
            self._model.abandon(lease)
        if chosen.which % 4:
            next_one = chosen._replace(client=0, queue=self._queues.index(queue), rare=True)
            self.acquire(next_one)
            self.write(next_one._replace(which=0, rare=False, flag=False))
            self.acquire(next_one)

    def extend(self, chosen: Chosen) -> None:
        """Any lease that was ever taken."""
        if (lease := self._lease(chosen)) is not None:
            client = self._writer(chosen, lease)
            lost = self._call(chosen.cut, lambda: client.extend([lease], lease_for=self._it.long))
            self._model.extend(lease, lost)

    def write(self, chosen: Chosen) -> None:
        """A new write, most likely under a lease that holds."""
        if not chosen.rare and not self._there(Where.HELD):
            self.acquire(chosen)
        if (lease := self._lease(chosen)) is None:
            return
        sent = self._sent[lease.receipt]
        queue, delay = None, 0.0
        if chosen.kind == "release":
            # A move that isn't atomic may leave two of one task when it's cut.
            if chosen.flag and (chosen.cut is None or self._it.claims(Capability.ATOMIC_MOVE)):
                queue = self._queues[chosen.queue]
            delay = self._delay(chosen.which % 4 == 3)
        write = self._it.write(lease, self._body(), seq=len(sent) + 1, delay=delay, queue=queue)
        sent.append((chosen.kind, write))
        self._send(chosen, chosen.kind, write)

    def repeat(self, chosen: Chosen) -> None:
        """A write that was sent before, unchanged: the last one under its lease, or an earlier one."""
        leases = [each for each in self._leases if self._sent[each.receipt]]
        if not leases:
            self.write(chosen)
        good = [each for each in leases if self._may_hold(each)]
        if good and not chosen.flag:
            leases = good
        if leases:
            sent = self._sent[leases[-1 - chosen.which // 2 % len(leases)].receipt]
            self._send(chosen, *sent[-1 - chosen.which % 2 % len(sent)])

    def purge(self, chosen: Chosen) -> None:
        """What waits in a queue."""
        queue, client = self._queue(chosen, Where.HELD, Where.OVER), self._clients[chosen.client]
        self._model.purge(queue, self._call(chosen.cut, lambda: client.purge(queue)))

    def cancel(self, chosen: Chosen) -> None:
        """Any task that was ever there."""
        known, client = self._model.ids, self._clients[chosen.client]
        if known and self._it.claims(Capability.CANCEL):
            task_id = known[-1 - chosen.which % len(known)]
            ended = self._call(chosen.cut, lambda: client.cancel([task_id], keep_for=self._keep_for))
            self._model.cancel(task_id, ended, keep_for=self._keep_for)

    # -- looks ----------------------------------------------------------------------------------------

    def count(self) -> None:
        """`stats` of both queues."""
        self._arrived()
        for queue in self._queues:
            self._model.stats(queue, self._it.broker.stats(queue))

    def look(self, _: Chosen | None = None) -> None:
        """Whatever else a broker tells of what it holds."""
        self._arrived()
        if self._it.claims(Capability.RECORDS) and self._model.ids:
            records = self._it.broker.get(self._model.ids)
            for task_id in self._model.ids:
                self._model.get(task_id, records.get(task_id))
        if self._it.claims(Capability.BROWSE):
            for queue in self._queues:
                for state in (State.READY, State.SCHEDULED, State.LEASED):
                    found = self._it.broker.browse(queue, state=state, limit=100)
                    self._model.browse(queue, state, [each.id for each in found])

    def finish(self) -> None:
        """End all that is there still, and see that nothing is left: what should have come back must."""
        if self._open_until:
            time.sleep(max(0.0, self._open_until - time.monotonic()))
        if self._timed:
            self._clients = [self._it.broker] * 2
        self.look()
        for lease in list(self._leases):
            if self._may_hold(lease):
                self._end(lease)
        for queue in self._queues:
            while self._model.maybe(queue, Where.OVER):
                leases = self._it.take(
                    _MOST, by=self._clients[0], queue=queue, wait=self._it.lease + self._it.grace
                )
                self._model.acquire(queue, leases, waited=True)
                self._keep(0, leases, extend=False)
                for lease in leases:
                    self._end(lease)
            self._model.purge(queue, self._it.broker.purge(queue))
        self.count()
        self.look()

    # -- how it is done -------------------------------------------------------------------------------

    def _body(self) -> bytes:
        return b"body %d" % next(self._bodies)

    def _keep(self, client: int, leases: Sequence[Lease], *, extend: bool) -> None:
        self._arrived()
        for lease in leases:
            self._leases.append(lease)
            self._sent[lease.receipt] = []
            self._by[lease.receipt] = client
            if extend:  # it was taken for a short time only
                self._model.extend(lease, self._holder(lease).extend([lease], lease_for=self._it.long))

    def _holder(self, lease: Lease) -> Broker:
        """Who may write under this lease: anybody, or the client that took it, if it ends with the connection."""
        return self._clients[self._by[lease.receipt]] if not self._timed else self._it.broker

    def _writer(self, chosen: Chosen, lease: Lease) -> Broker:
        """The chosen client, if it may."""
        return self._clients[chosen.client] if self._timed else self._holder(lease)

    def _end(self, lease: Lease) -> None:
        write = self._it.write(lease, self._body(), seq=len(self._sent[lease.receipt]) + 1)
        lost = self._call(None, lambda: self._holder(lease).ack([write], keep_for=self._keep_for))
        self._model.ack(write, lost, keep_for=self._keep_for)

    def _there(self, *where: Where) -> list[str]:
        return [task_id for queue in self._queues for task_id in self._model.maybe(queue, *where)]

    def _queue(self, chosen: Chosen, *where: Where) -> str:
        """The chosen queue; most likely the other one, if only that has a task in one of these states."""
        queue, other = self._queues[chosen.queue], self._queues[1 - chosen.queue]
        return other if not chosen.rare and not self._model.maybe(queue, *where) else queue

    def _lease(self, chosen: Chosen) -> Lease | None:
        """Most likely one that holds; else any that was ever taken, the last ones first."""
        good = [each for each in self._leases if self._may_hold(each)]
        leases = self._leases if chosen.rare or not good else good
        return leases[-1 - chosen.which % len(leases)] if leases else None

    def _may_hold(self, lease: Lease) -> bool:
        return any(each.receipt == lease.receipt for each in self._model.states(lease.envelope.id))

    def _delay(self, wanted: object) -> float:
        return self._it.later if wanted and self._it.claims(Capability.DELAY) else 0.0

    def _send(self, chosen: Chosen, kind: Kind, write: Write) -> None:
        broker, cut = self._writer(chosen, write.lease), chosen.cut
        if kind == "checkpoint":
            self._model.checkpoint(write, self._call(cut, lambda: broker.checkpoint([write])))
        elif kind == "ack":
            lost = self._call(cut, lambda: broker.ack([write], keep_for=self._keep_for))
            self._model.ack(write, lost, keep_for=self._keep_for)
        else:
            self._model.release(write, self._call(cut, lambda: broker.release([write])))

    def _call(self, cut: Cut | None, call: Callable[[], T]) -> T | None:
        """What the call gives; None if its outcome is unknown."""
        self._arrived()
        if self._proxy is None:
            return call()
        trap = None if cut is None else self._proxy.cut_after(*cut)
        try:
            return call()
        except BrokerUnavailable:
            self._it.figures["unknown"] = int(self._it.figures.get("unknown", 0)) + 1
            self._open_until = time.monotonic() + _ARRIVES
            self._model.disconnect()
            return None
        finally:
            self._proxy.disarm()
            self._broken = trap is not None and trap.sprung

    def _arrived(self) -> None:
        if self._broken:
            self._broken = False
            self._model.disconnect()
        if self._open_until and time.monotonic() > self._open_until:
            self._open_until = 0.0
            self._model.settled()
