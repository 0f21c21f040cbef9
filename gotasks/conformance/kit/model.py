"""Model: what a broker may hold. For each task the SET of states in which it can be, given what was asked and answered.

A call whose answer is known leaves the states that explain the answer; none left is `Impossible`. A call whose outcome
is unknown leaves both what was and what would be, and what was sent may still arrive for a while: see `late`. Tasks
are taken one by one, so the set is at times larger than it must be: what the model calls impossible is so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from gotasks.broker import Capability, Envelope, Lease, QueueStats, Record, State, Write
from gotasks.conformance.expect import Nonconformance

#: What a call does to one state.
Change = Callable[["Task"], "Task"]


class Impossible(Nonconformance):
    """No state explains what the broker has answered. The message tells the task's story."""


class Where(Enum):
    """Where a task is, as its clients may know it."""

    NOWHERE = "nowhere"  #: never stored, or gone
    READY = "ready"
    SCHEDULED = "scheduled"
    HELD = "held"
    OVER = "over"  #: its lease is over, or nobody was told of it; who had it may still write, where leases have a time
    DONE = "done"
    CANCELLED = "cancelled"


_LIVE = (Where.READY, Where.SCHEDULED, Where.HELD, Where.OVER)
_WAITING = (Where.READY, Where.SCHEDULED)


class Task(NamedTuple):
    """One state in which a task may be."""

    where: Where = Where.NOWHERE
    queue: str = ""
    body: bytes = b""
    deaths: int = 0
    receipt: str | None = None
    seq: int = 0

    @property
    def counts_as(self) -> State | None:
        """Where `stats` counts it and `get` sees it; None if nowhere."""
        if self.where in (Where.HELD, Where.OVER):
            return State.LEASED
        return State(self.where.value) if self.where is not Where.NOWHERE else None


_NOTHING = Task()


class Model:
    """What a broker with these capabilities may hold. Every method takes a call and its answer; raises Impossible.

    An answer of None: the outcome is unknown.
    """

    def __init__(self, capabilities: Capability) -> None:
        self._timed = Capability.TIMED_LEASE in capabilities
        self._handoff = Capability.HANDOFF in capabilities
        self._records = Capability.RECORDS in capabilities
        self._tasks: defaultdict[str, set[Task]] = defaultdict(lambda: {_NOTHING})
        self._late: list[tuple[Collection[str] | None, Change]] = []
        self._lost = 0  #: how many calls of acquire had an unknown outcome
        self._story: defaultdict[str, list[str]] = defaultdict(list)

    # -- what is known --------------------------------------------------------------------------------

    @property
    def ids(self) -> list[str]:
        """All tasks of which it has heard."""
        return list(self._tasks)

    def states(self, task_id: str) -> frozenset[Task]:
        """Those in which this task may be."""
        return frozenset(self._tasks.get(task_id, {_NOTHING}))

    def surely(self, queue: str, *where: Where) -> list[str]:
        """The tasks that are certainly in one of these states in this queue."""
        return [
            task_id
            for task_id, states in self._tasks.items()
            if all(each.where in where and each.queue == queue for each in states)
        ]

    def maybe(self, queue: str, *where: Where) -> list[str]:
        """The tasks that may be."""
        return [
            task_id
            for task_id, states in self._tasks.items()
            if any(each.where in where and each.queue == queue for each in states)
        ]

    def settled(self) -> None:
        """What was sent with an unknown outcome has arrived by now, or never will."""
        self._late.clear()

    # -- calls ----------------------------------------------------------------------------------------

    def enqueue(self, envelope: Envelope, known: Mapping[str, str] | None) -> None:
        """`known`: what the call gave."""
        where = Where.SCHEDULED if envelope.delay > 0 else Where.READY
        stored = Task(where, envelope.queue, envelope.body)

        def change(task: Task) -> Task:
            return stored if task.where is Where.NOWHERE else task

        def explains(task: Task) -> bool:
            expected = {} if task.where is Where.NOWHERE else {envelope.id: envelope.id}
            return known is None or dict(known) == expected

        self._apply(
            [envelope.id],
            f"enqueue → {_said(known)}",
            change,
            explains if known is not None else None,
        )

    def acquire(
        self,
        queue: str,
        leases: Sequence[Lease] | None,
        *,
        ids: Collection[str] | None = None,
        waited: bool = False,
    ) -> None:
        """`waited`: so long that what a lease has left behind must have come back."""
        self._lost += 1
        nobodys = f"lost-{self._lost}"

        def lose(task: Task) -> Task:
            eligible = _eligible(task, queue, scheduled=ids is not None) and task.receipt != nobodys
            deaths = task.deaths + (task.where is Where.OVER)
            return Task(Where.OVER, task.queue, task.body, deaths, nobodys) if eligible else task

        if leases is None:
            self._apply(ids, "acquire → unknown", lose, None)
            return
        given = {lease.envelope.id: lease for lease in leases}
        if len(given) < len(leases):
            raise Impossible(f"one acquire gave the same task twice: {[each.envelope.id for each in leases]}")
        for task_id, lease in given.items():
            if ids is not None and task_id not in ids:
                raise Impossible(f"acquire(ids={list(ids)}) gave {task_id}")
            self._take(queue, lease, scheduled=ids is not None)
        must = {Where.READY} | ({Where.OVER} if waited else set())
        if ids is not None:
            must.add(Where.SCHEDULED)
        if leases and ids is None:
            return  # it may have returned as soon as it had one
        for task_id in ids if ids is not None else self.ids:
            if task_id not in given:
                self._apply(
                    [task_id],
                    f"wasn't offered in {queue}",
                    _same,
                    lambda task: not (task.where in must and task.queue == queue),
                )

    def extend(self, lease: Lease, lost: Collection[str] | None) -> None:
        """The lease lasts long from now on."""

        def change(task: Task) -> Task:
            return task._replace(where=Where.HELD) if _holds(task, lease) else task

        def explains(task: Task) -> bool:
            return not (_holds(task, lease) and lease.receipt in (lost or ()))

        self._apply(
            [lease.envelope.id],
            f"extend under {_short(lease)} → {_lost(lease, lost)}",
            change,
            explains if lost is not None else None,
        )

    def checkpoint(self, write: Write, lost: Collection[str] | None) -> None:
        """In place, or with HANDOFF back into its queue."""

        def change(task: Task) -> Task:
            if self._handoff:
                return Task(Where.READY, task.queue, write.body)
            return task._replace(body=write.body, deaths=0, seq=write.seq)

        self._write("checkpoint", write, lost, change)

    def ack(self, write: Write, lost: Collection[str] | None, *, keep_for: float) -> None:
        """Kept as a record, or gone."""

        def change(task: Task) -> Task:
            return self._ended(task._replace(body=write.body), Where.DONE, keep_for)

        self._write("ack", write, lost, change)

    def release(self, write: Write, lost: Collection[str] | None) -> None:
        """Back into its queue, or another."""

        def change(task: Task) -> Task:
            where = Where.SCHEDULED if write.delay > 0 else Where.READY
            return Task(where, write.queue or task.queue, write.body)

        self._write(f"release into {write.queue or 'its queue'}", write, lost, change)

    def abandon(self, lease: Lease) -> None:
        """Its lease is over, or its holder dead."""

        def change(task: Task) -> Task:
            receipt = lease.receipt if self._timed else None
            return task._replace(where=Where.OVER, receipt=receipt) if _holds(task, lease) else task

        self._apply([lease.envelope.id], f"{_short(lease)} is over", change, _any)

    def disconnect(self) -> None:
        """A connection has broken: without TIMED_LEASE any lease may be over."""
        if not self._timed:
            for task_id in self.ids:
                self._tasks[task_id] |= {
                    each._replace(where=Where.OVER, receipt=None)
                    for each in self._tasks[task_id]
                    if each.where is Where.HELD
                }

    def purge(self, queue: str, count: int | None) -> None:
        """What waits is gone."""

        def change(task: Task) -> Task:
            return _NOTHING if task.where in _WAITING and task.queue == queue else task

        if count is not None:
            self._add_late(None)
            counts = {0}
            for states in self._tasks.values():
                each = {self._purged(task, queue, change) for task in states}
                counts = {have + more for have in counts for more in set().union(*each)}
            if count not in counts:
                raise Impossible(f"purge gave {count}; {queue} held {_either(counts)}: {self._queue(queue)}")
        self._apply(None, f"purge of {queue} → {_said(count)}", change, _any if count is not None else None)
        if not self._timed:  # what a dead holder left may have been among it
            for states in self._tasks.values():
                states |= {_NOTHING for task in states if task.where is Where.OVER and task.queue == queue}

    def cancel(self, task_id: str, ended: Collection[str] | None, *, keep_for: float) -> None:
        """Held or not."""

        def change(task: Task) -> Task:
            return self._ended(task, Where.CANCELLED, keep_for) if task.where in _LIVE else task

        def explains(task: Task) -> bool:
            return (task.where in _LIVE) == (task_id in (ended or ()))

        self._apply([task_id], f"cancel → {_said(ended)}", change, explains if ended is not None else None)

    # -- looks ----------------------------------------------------------------------------------------

    def get(self, task_id: str, record: Record | None) -> None:
        """`record`: None if it isn't known."""

        def explains(task: Task) -> bool:
            if record is None or task.where is Where.NOWHERE:
                return record is None and task.where is Where.NOWHERE
            same = (record.queue, record.body) == (task.queue, task.body)
            return same and record.state in self._seen_as(task)

        self._apply([task_id], f"get → {_said(record)}", _same, explains)

    def browse(self, queue: str, state: State, ids: Collection[str]) -> None:
        """`ids`: all that are there."""
        for task_id in {*self.ids, *ids}:

            def explains(task: Task, task_id: str = task_id) -> bool:
                seen = self._seen_as(task) if task.queue == queue else {None}
                return state in seen if task_id in ids else seen != {state}

            there = "is" if task_id in ids else "isn't"
            self._apply([task_id], f"browse: {there} {state.value} in {queue}", _same, explains)

    def stats(self, queue: str, stats: QueueStats) -> None:
        """At rest."""
        self._add_late(None)
        sums: set[tuple[int, int, int]] = {(0, 0, 0)}
        for states in self._tasks.values():
            each = {self._counted(state) for task in states for state in self._seen_in(task, queue)}
            sums = {(a + x, b + y, c + z) for a, b, c in sums for x, y, z in each}
        seen = (stats.ready, stats.scheduled, stats.leased)
        if not any(all(a is None or a == b for a, b in zip(seen, each, strict=True)) for each in sums):
            raise Impossible(
                f"stats gave (ready, scheduled, leased) = {seen}; {queue} held {_either(sums)}: "
                f"{self._queue(queue)}"
            )

    # -- how it is done -------------------------------------------------------------------------------

    def _apply(
        self,
        ids: Iterable[str] | None,
        what: str,
        change: Change,
        explains: Callable[[Task], bool] | None,
    ) -> None:
        """Apply a call to the tasks `ids` (None: all).

        `explains`: whether a state explains the answer; None: there was none.
        """
        named = None if ids is None else list(ids)
        self._add_late(named)
        if explains is None:
            self._late.append((named, change))
        for task_id in self.ids if named is None else named:
            before = self._tasks[task_id]
            after = {change(each) for each in before if explains is None or explains(each)}
            if not after:
                raise Impossible(f"{what}, but the task {self._told(task_id)}")
            after |= before if explains is None else set()
            if named is not None or after != before:
                self._story[task_id].append(what)
            self._tasks[task_id] = after

    def _add_late(self, ids: Collection[str] | None) -> None:
        """What was sent before with an unknown outcome may have arrived in the meantime, in any order."""
        for task_id in self.ids if ids is None else ids:
            changes = [change for named, change in self._late if named is None or task_id in named]
            states = self._tasks[task_id]
            for change in [*changes, *reversed(changes)]:
                states |= {change(each) for each in states}

    def _take(self, queue: str, lease: Lease, *, scheduled: bool) -> None:
        given = lease.envelope
        held = Task(Where.HELD, queue, given.body, lease.deaths, lease.receipt)

        def explains(task: Task) -> bool:
            died = task.where is Where.OVER
            same = (task.body, task.deaths + died) == (given.body, lease.deaths)
            return _eligible(task, queue, scheduled=scheduled) and same and given.queue == queue

        what = f"acquire in {queue} → {_short(lease)} with {given.body!r}, {lease.deaths} deaths"
        if any(task.receipt == lease.receipt for states in self._tasks.values() for task in states):
            raise Impossible(f"{what}: this receipt was given before")
        self._apply([given.id], what, lambda _: held, explains)

    def _write(self, kind: str, write: Write, lost: Collection[str] | None, change: Change) -> None:
        lease = write.lease

        def written(task: Task) -> Task:
            return change(task) if _holds(task, lease) and write.seq > task.seq else task

        def explains(task: Task) -> bool:
            held = _holds(task, lease) and write.seq >= task.seq
            return held == (lease.receipt not in (lost or ()))

        self._apply(
            [lease.envelope.id],
            f"{kind} of {write.body!r}, seq {write.seq}, under {_short(lease)} → {_lost(lease, lost)}",
            written,
            explains if lost is not None else None,
        )

    def _ended(self, task: Task, where: Where, keep_for: float) -> Task:
        if keep_for > 0 and self._records:
            return Task(where, task.queue, task.body)
        return _NOTHING

    def _seen_as(self, task: Task) -> set[State | None]:
        """Without TIMED_LEASE the server may have put back already what a dead holder left."""
        back = {State.READY} if task.where is Where.OVER and not self._timed else set()
        return {task.counts_as, *back}

    def _seen_in(self, task: Task, queue: str) -> set[State | None]:
        return self._seen_as(task) if task.queue == queue else {None}

    @staticmethod
    def _counted(state: State | None) -> tuple[int, int, int]:
        return (state is State.READY, state is State.SCHEDULED, state is State.LEASED)

    def _purged(self, task: Task, queue: str, change: Change) -> frozenset[int]:
        if task.queue == queue and task.where is Where.OVER and not self._timed:
            return frozenset({0, 1})
        return frozenset({int(change(task) != task)})

    # -- words ----------------------------------------------------------------------------------------

    def _told(self, task_id: str) -> str:
        could = " or ".join(sorted({_described(each) for each in self._tasks[task_id]}))
        return f"{task_id} was {could}. Its story: {'; '.join(self._story[task_id])}"

    def _queue(self, queue: str) -> str:
        there = self.maybe(queue, *_LIVE)
        return " | ".join(self._told(each) for each in there) or "nothing was ever there"


def _same(task: Task) -> Task:
    return task


def _any(_: Task) -> bool:
    return True


def _holds(task: Task, lease: Lease) -> bool:
    return task.where in (Where.HELD, Where.OVER) and task.receipt == lease.receipt


def _eligible(task: Task, queue: str, *, scheduled: bool) -> bool:
    waits = task.where in (Where.READY, Where.OVER) or (scheduled and task.where is Where.SCHEDULED)
    return task.queue == queue and waits


def _described(task: Task) -> str:
    if task.where is Where.NOWHERE:
        return "nowhere"
    return f"{task.where.value} in {task.queue} with {task.body!r} and {task.deaths} deaths"


def _short(lease: Lease) -> str:
    return f"receipt …{lease.receipt[-6:]}"


def _lost(lease: Lease, lost: Collection[str] | None) -> str:
    return "unknown" if lost is None else "lost" if lease.receipt in lost else "held"


def _said(answer: object) -> str:
    return "unknown" if answer is None else repr(answer)


def _either(values: Iterable[object]) -> str:
    return " or ".join(str(each) for each in sorted(values, key=repr))
