"""Faulty: unique keys that let two in, or nobody any more."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec

from gotasks.broker import Envelope, Lease, State, Write
from gotasks.conformance.faulty import Faulty, faulty
from gotasks.memory import _Task


@faulty("UNQ-01")
class OverClaimUnique(Faulty):
    """Claims UNIQUE and stores every envelope."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if any(each.unique is not None for each in envelopes):
            self.trip()
        return super().enqueue([msgspec.structs.replace(each, unique=None) for each in envelopes])


@faulty("UNQ-01")
class UniqueWhileReady(Faulty):
    """A unique key is free as soon as somebody holds its task."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        if task.unique is not None and task.unique in self._unique:
            self.trip()
            del self._unique[task.unique]
        return super()._lease(task, now, lease_for)


@faulty("UNQ-01")
class SaysTakenButStores(Faulty):
    """Says that a unique key is taken, and stores the envelope all the same."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = super().enqueue(envelopes)
        with self._changed:
            for each in envelopes:
                if each.id in there and there[each.id] != each.id:
                    self.trip()
                    task = self._tasks[each.id] = _Task(each)
                    self._put(task, 0.0, next(self._back))
        return there


@faulty("UNQ-02")
class UniqueForever(Faulty):
    """A key once used is taken for good when its task's record is kept."""

    def _end(self, task: _Task, state: State, keep_for: float) -> None:
        key = task.unique
        super()._end(task, state, keep_for)
        if key is not None and keep_for > 0:
            self.trip()
            self._unique[key] = task.id


@faulty("UNQ-02")
class PurgeKeepsKey(Faulty):
    """A purge leaves the unique keys of what it removes."""

    def purge(self, queue: str) -> int:
        keys = dict(self._unique)
        count = super().purge(queue)
        if keys != self._unique:
            self.trip()
        self._unique.update(keys)
        return count


@faulty("UNQ-02")
class UniqueOnce(Faulty):
    """A key that was freed once isn't watched any more."""

    def _empty(self) -> None:
        super()._empty()
        self.freed: set[str | None] = set()

    def _end(self, task: _Task, state: State, keep_for: float) -> None:
        self.freed.add(task.unique)
        super()._end(task, state, keep_for)

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if any(each.unique is not None and each.unique in self.freed for each in envelopes):
            self.trip()
        return super().enqueue(
            [
                msgspec.structs.replace(each, unique=None) if each.unique in self.freed else each
                for each in envelopes
            ]
        )


@faulty("UNQ-03")
class LooksThenStores(Faulty):
    """Looks whether a unique key is taken, and then stores, though somebody may have come between."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        taken = {each.id: self._unique[each.unique] for each in envelopes if each.unique in self._unique}
        time.sleep(0.002)
        free = [msgspec.structs.replace(each, unique=None) for each in envelopes if each.id not in taken]
        for each in envelopes:
            if each.unique is not None and each.id not in taken:
                if each.unique in self._unique:
                    self.trip()
                self._unique[each.unique] = each.id
        return {**super().enqueue(free), **taken}


@faulty("UNQ-04")
class KeysFold(Faulty):
    """The column of unique keys compares without case, and without blanks at the end."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        folded = [each.unique if each.unique is None else each.unique.lower().rstrip() for each in envelopes]
        if folded != [each.unique for each in envelopes]:
            self.trip()
        return super().enqueue(
            [msgspec.structs.replace(each, unique=key) for each, key in zip(envelopes, folded, strict=True)]
        )


@faulty("UNQ-04")
class EmptyIsNone(Faulty):
    """An empty unique key is taken for none."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if any(each.unique == "" for each in envelopes):
            self.trip()
        return super().enqueue(
            [msgspec.structs.replace(each, unique=each.unique or None) for each in envelopes]
        )


@faulty("UNQ-05")
class BatchUnseen(Faulty):
    """Checks a call's unique keys against what is stored, not against each other."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there: dict[str, str] = {}
        known = set(self._unique)
        for each in envelopes:
            if each.unique is not None and each.unique in self._unique and each.unique not in known:
                self.trip()
                each = msgspec.structs.replace(each, unique=None)  # noqa: PLW2901
            there |= super().enqueue([each])
        return there


@faulty("UNQ-05")
class BatchStopsAtTaken(Faulty):
    """A unique key that is taken ends the call: what comes after it isn't stored."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        for index, each in enumerate(envelopes):
            there = super().enqueue([each])
            if there:
                if index + 1 < len(envelopes):
                    self.trip()
                return there
        return {}


@faulty("UNQ-01")
class MoveFreesKey(Faulty):
    """A task that is moved leaves its unique key behind."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        for each in writes:
            task = self._held(each.lease)
            if task is not None and task.unique is not None and each.queue is not None:
                self.trip()
                self._unique.pop(task.unique, None)
        return super().release(writes)
