"""Bench: where a row cuts the calls of a client, and sees from a clean one what became of the tasks."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeVar

from gotasks.broker import Lease
from gotasks.conformance.expect import Nonconformance
from gotasks.conformance.kit.sweep import Cut, connect, sweep
from gotasks.conformance.scene import PATIENCE, Scene
from gotasks.errors import BrokerUnavailable

G = TypeVar("G")
A = TypeVar("A")

#: What a held task holds, and what is written under its lease. Of different lengths, so that a mix is neither.
OLD, NEW = b"the old body", b"the new body, and some more"


class Bench:
    """A client whose calls are cut, one that isn't, and the account of the tasks that the first one held."""

    def __init__(self, it: Scene) -> None:
        self._it = it
        self.proxy, url = it.proxy()
        self.through = it.client(url)
        self.clean = it.client()
        #: task id → the bodies of the copies that were offered again after the cut
        self.back: dict[str, list[bytes]] = defaultdict(list)
        #: task id → where its call was cut
        self.where: dict[str, str] = {}
        self._last: list[Lease] = []
        self._most = it.times(quick=25, full=400)

    def sweep(self, call: Callable[[G], A], prepare: Callable[[], G]) -> Iterator[Cut[G, A]]:
        """Cut `call(prepare())` everywhere; see `kit.sweep`."""
        cuts = sweep(self.proxy, call, prepare=prepare, ready=self.ready, most=self._most)
        tried = sprung = 0
        for cut in cuts:
            yield cut
            tried, sprung = tried + 1, sprung + cut.sprung
        if not sprung:
            raise Nonconformance(
                "no byte of the call came by: the adapter's through(url, port) leads past the proxy"
            )
        figures = self._it.figures
        figures["tries"] = int(figures.get("tries", 0)) + tried
        figures["cuts"] = int(figures.get("cuts", 0)) + sprung

    def ready(self) -> object:
        """Ask something that changes nothing."""
        return self.through.stats(self._it.queue)

    def repeat(self, cut: Cut[G, frozenset[str]], call: Callable[[G], frozenset[str]]) -> frozenset[str]:
        """What a write says at last: if it wasn't answered, it is sent again unchanged, until it is."""
        if cut.answer is not None:
            return cut.answer
        end = time.monotonic() + PATIENCE
        while True:
            connect(self.ready)
            try:
                return call(cut.given)
            except BrokerUnavailable:
                if time.monotonic() > end:
                    raise

    def hold(self) -> Lease:
        """A new task, held by the client that will be cut. Whatever else is offered has come back: it's counted."""
        it = self._it
        (task_id,) = it.put(body=OLD, by=self.clean)
        held: list[Lease] = []
        end = time.monotonic() + PATIENCE
        while not held:
            if time.monotonic() > end:
                raise Nonconformance(f"a task that was just enqueued wasn't offered for {PATIENCE:g} s")
            try:
                leases = it.take(it.limits.max_batch, by=self.through, wait=0.2, lease_for=it.lease)
            except BrokerUnavailable:
                continue
            held += [lease for lease in leases if lease.envelope.id == task_id]
            self._count([lease for lease in leases if lease not in held])
        self._last = held
        return held[0]

    def come_back(self, expected: Collection[str]) -> dict[str, list[bytes]]:
        """End all leases, and acquire until these tasks were there and nothing is left, or nothing comes; `back`."""
        it = self._it
        it.abandon(self._last, by=self.through)
        end = time.monotonic() + it.grace
        while True:
            leases = it.take(it.limits.max_batch, by=self.clean, wait=0.1)
            self._count(leases, by_clean=True)
            if leases:  # as slow a broker as it may be
                end = time.monotonic() + it.grace
            left = self.clean.stats(it.queue)
            # What a server can't count may be there still.
            rest = any(each is None or each > 0 for each in (left.ready, left.scheduled, left.leased))
            if (not rest and not leases and set(expected) <= self.back.keys()) or time.monotonic() > end:
                return self.back

    def say(self, wrong: Mapping[str, object]) -> str:
        """How many of the tasks are wrong, and what was seen of the first one."""
        task = next(iter(wrong), "")
        return (
            f"{len(wrong)} of {len(self.where)}; the first one, {self.where.get(task)}: {wrong.get(task)!r}"
        )

    def take_clean(self, queue: str) -> list[Lease]:
        """All that this queue offers now; it's ended."""
        return self._it.drain(by=self.clean, queue=queue)

    def _count(self, leases: list[Lease], *, by_clean: bool = False) -> None:
        for lease in leases:
            self.back[lease.envelope.id].append(lease.envelope.body)
        holder = self.clean if by_clean else self.through
        if leases:
            holder.ack([self._it.write(lease) for lease in leases], keep_for=0)
