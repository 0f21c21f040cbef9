"""View: all tasks of the stream without their bodies, as its messages tell. Knows no network."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from gotasks.broker import State
from gotasks_nats.entry import Entry

#: What stands where in a queue: priority, what dead holders left, place, sequence, id.
_Ready = tuple[int, int, int, int, str]


class Task(NamedTuple):
    """A task as one message of the stream has it."""

    id: str
    seq: int  #: of the message, so that a change of it can say what it changes
    stored: int  #: when, by the server's clock in ns
    entry: Entry
    until: int  #: when it is due or over, likewise; 0 if it's ready

    def state(self, now: int) -> State:
        """Where it is at this moment."""
        if self.entry.state == "scheduled" and self.until <= now:
            return State.READY
        return State(self.entry.state)

    def forgotten(self, now: int) -> bool:
        """Whether it has ended and its record's time is over."""
        return self.entry.ended and self.until <= now

    def held(self, now: int) -> bool:
        """Whether its lease isn't over."""
        return self.entry.state == "leased" and self.until > now

    def place(self) -> _Ready:
        """Where it stands among those that can be leased: the lowest goes first."""
        entry = self.entry
        if entry.state == "leased":
            return (-entry.priority, 0, self.until, self.seq, self.id)
        place = self.until if entry.state == "scheduled" else self.stored
        return (-entry.priority, 1, -place if entry.front else place, self.seq, self.id)


def task(id: str, seq: int, stored: int, entry: Entry) -> Task:
    """The task of a message."""
    until = 0 if entry.state == "ready" else entry.ends(stored)
    return Task(id, seq, stored, entry, until)


class _Queue:
    """What is known of one queue. The heaps may hold stale elements."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Task]] = defaultdict(dict)
        self.ready: list[_Ready] = []
        self.later: list[tuple[int, int, str]] = []  #: what is due or over some time, and then ready


class View:
    """Not thread-safe: one event loop has it."""

    def __init__(self) -> None:
        self.seq = 0  #: the last message of the stream that was seen
        self.tasks: dict[str, Task] = {}
        self._queues: dict[str, _Queue] = defaultdict(_Queue)
        self._ended: list[tuple[int, int, str]] = []
        self._gone: dict[
            str, int
        ] = {}  #: id → what it had up to this sequence was removed, and may yet arrive

    def put(self, task: Task) -> None:
        """A message has arrived."""
        known = self.tasks.get(task.id)
        if task.seq <= self._gone.get(task.id, 0) or (known is not None and task.seq <= known.seq):
            return
        self._drop(task.id)
        self.tasks[task.id] = task
        queue = self._queues[task.entry.queue]
        queue.states[task.entry.state][task.id] = task
        if task.entry.ended:
            heapq.heappush(self._ended, (task.until, task.seq, task.id))
        elif task.until:
            heapq.heappush(queue.later, (task.until, task.seq, task.id))
        else:
            heapq.heappush(queue.ready, task.place())

    def gone(self, id: str, seq: int) -> None:
        """Whatever this task had up to this sequence was removed from the stream."""
        if id in self.tasks and self.tasks[id].seq <= seq:
            self._drop(id)
        if seq > self.seq:
            self._gone[id] = seq

    def reached(self, seq: int) -> None:
        """All up to this sequence has arrived, as far as it's still there."""
        self.seq = max(self.seq, seq)
        if self._gone:
            self._gone = {id: gone for id, gone in self._gone.items() if gone > self.seq}

    def take(self, queue: str, now: int, limit: int) -> list[Task]:
        """The next ones that can be leased. Nobody else is given them until they change, or are put `back`."""
        if queue not in self._queues:
            return []
        here = self._queues[queue]
        self._ripen(here, now)
        taken: list[Task] = []
        while here.ready and len(taken) < limit:
            *_, seq, id = heapq.heappop(here.ready)
            task = self.tasks.get(id)
            if task is not None and task.seq == seq:
                taken.append(task)
        return taken

    def back(self, tasks: Iterable[Task]) -> None:
        """These were taken and not leased."""
        for task in tasks:
            if self.tasks.get(task.id) is task:
                heapq.heappush(self._queues[task.entry.queue].ready, task.place())

    def next_change(self, queue: str) -> int | None:
        """When, by time alone, something can be leased; ns."""
        if queue not in self._queues:
            return None
        later = self._queues[queue].later
        while later and not self._is_there(later[0]):
            heapq.heappop(later)
        return later[0][0] if later else None

    def found(self, queue: str, state: State, now: int) -> list[Task]:
        """The tasks of a queue in one state, the next to leave first."""
        if queue not in self._queues:
            return []
        states = self._queues[queue].states
        if state is State.READY:
            due = [each for each in states["scheduled"].values() if each.until <= now]
            return sorted([*states["ready"].values(), *due], key=Task.place)
        tasks = [each for each in states[state.value].values() if each.state(now) is state]
        return sorted(tasks, key=lambda each: (each.until, each.id))

    def count(self, queue: str, now: int) -> tuple[int, int, int]:
        """How many are ready, scheduled and leased."""
        if queue not in self._queues:
            return 0, 0, 0
        states = self._queues[queue].states
        due = sum(1 for each in states["scheduled"].values() if each.until <= now)
        return len(states["ready"]) + due, len(states["scheduled"]) - due, len(states["leased"])

    def over(self, now: int) -> list[Task]:
        """Records whose time is over; each is given once."""
        found = []
        while self._ended and self._ended[0][0] <= now:
            element = heapq.heappop(self._ended)
            if self._is_there(element):
                found.append(self.tasks[element[2]])
        return found

    def _ripen(self, queue: _Queue, now: int) -> None:
        """What is due, or whose lease is over, can be leased."""
        while queue.later and queue.later[0][0] <= now:
            element = heapq.heappop(queue.later)
            if self._is_there(element):
                heapq.heappush(queue.ready, self.tasks[element[2]].place())

    def _is_there(self, element: tuple[int, int, str]) -> bool:
        task = self.tasks.get(element[2])
        return task is not None and task.seq == element[1]

    def _drop(self, id: str) -> None:
        before = self.tasks.pop(id, None)
        if before is None:
            return
        queue = self._queues[before.entry.queue]
        del queue.states[before.entry.state][id]
        if not any(queue.states.values()):
            del self._queues[before.entry.queue]
