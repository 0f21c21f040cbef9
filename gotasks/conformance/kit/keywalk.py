"""Keywalk: random steps with a few unique keys, and who has each of them. One client, so every answer is known."""

from __future__ import annotations

from dataclasses import dataclass, field

from gotasks.broker import Capability, Envelope, Lease
from gotasks.conformance.scene import LONG, Scene

#: The steps, each as often as it should be chosen.
_MENU = (*["enqueue"] * 5, *["take"] * 3, *["release"] * 3, "checkpoint", "ack", "late", "purge", "cancel")

#: So many tasks of a story are told, the last ones.
_TOLD = 15


@dataclass
class _Living:
    """A task that hasn't ended."""

    task: Envelope
    queue: str
    lease: Lease | None = None
    writes: int = 0


@dataclass
class KeyWalk:
    """One walk through two queues with two keys. `wrong` says what was wrongly answered, and what led to it."""

    it: Scene
    wrong: str = ""
    _living: dict[str, _Living] = field(default_factory=dict)
    _refused: list[Envelope] = field(default_factory=list)
    _former: list[Lease] = field(default_factory=list)
    _story: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._queues = self.it.name("walk-a"), self.it.name("walk-b")
        self._keys = [f"{queue} key" for queue in self._queues]
        self._keep_for = LONG if self.it.claims(Capability.RECORDS) else 0.0

    def go(self, steps: int) -> None:
        """So many steps, or until an answer is wrong."""
        for _ in range(steps):
            getattr(self, self.it.random.choice(_MENU))(self.it.random.choice(self._queues))
            if self.wrong:
                return

    def enqueue(self, queue: str) -> None:
        """A new envelope with a key, or one that was refused before; it must be answered as its key says."""
        random = self.it.random
        delay = self.it.later if self.it.claims(Capability.DELAY) and random.random() < 0.2 else 0.0
        task = self.it.envelope(queue=queue, unique=random.choice(self._keys), delay=delay)
        if self._refused and random.random() < 0.3:
            task = self._refused.pop(random.randrange(len(self._refused)))
        owner = next((each for each, one in self._living.items() if one.task.unique == task.unique), None)
        there = dict(self.it.broker.enqueue([task]))
        self._tell("enqueue", f"{task.id} with {task.unique!r} into {task.queue} → {there}")
        right = {} if owner is None else {task.id: owner}
        if there != right:
            story = "; ".join(self._story[-_TOLD:])
            self.wrong = f"an enqueue of {task.id} was answered {there}, not {right}, after these: {story}"
        if owner is None:
            self._living[task.id] = _Living(task, task.queue)
        else:
            self._refused.append(task)

    def take(self, queue: str) -> None:
        """One that waits."""
        for lease in self.it.take(queue=queue):
            self._tell("acquire", lease.envelope.id)
            if lease.envelope.id in self._living:
                self._living[lease.envelope.id].lease = lease
                self._living[lease.envelope.id].writes = 0

    def release(self, queue: str) -> None:
        """One that is held, into one of the queues."""
        if (one := self._held()) is not None and one.lease is not None:
            one.writes += 1
            self.it.broker.release([self.it.write(one.lease, seq=one.writes, queue=queue)])
            self._tell("release", f"{one.task.id} into {queue}")
            self._ended(one)
            one.queue = queue

    def checkpoint(self, _: str) -> None:
        """One that is held."""
        if (one := self._held()) is not None and one.lease is not None:
            one.writes += 1
            self.it.broker.checkpoint([self.it.write(one.lease, seq=one.writes)])
            self._tell("checkpoint", one.task.id)
            if self.it.claims(Capability.HANDOFF):
                self._ended(one)

    def ack(self, _: str) -> None:
        """One that is held; at times its record is kept."""
        if (one := self._held()) is not None and one.lease is not None:
            keep_for = self.it.random.choice([0.0, self._keep_for])
            self.it.broker.ack([self.it.write(one.lease, seq=one.writes + 1)], keep_for=keep_for)
            self._tell("ack", one.task.id)
            self._ended(one)
            del self._living[one.task.id]

    def late(self, _: str) -> None:
        """A write under a lease that has ended."""
        if self._former:
            lease = self.it.random.choice(self._former)
            self.it.broker.ack([self.it.write(lease, seq=99)], keep_for=0)
            self._tell("late ack", lease.envelope.id)

    def purge(self, queue: str) -> None:
        """What waits."""
        self.it.broker.purge(queue)
        self._tell("purge", queue)
        for one in list(self._living.values()):
            if one.queue == queue and one.lease is None:
                del self._living[one.task.id]

    def cancel(self, _: str) -> None:
        """Any that lives."""
        if self.it.claims(Capability.CANCEL) and self._living:
            one = self.it.random.choice(list(self._living.values()))
            self.it.broker.cancel([one.task.id], keep_for=self.it.random.choice([0.0, self._keep_for]))
            self._tell("cancel", one.task.id)
            self._ended(one)
            del self._living[one.task.id]

    def _held(self) -> _Living | None:
        held = [one for one in self._living.values() if one.lease is not None]
        return self.it.random.choice(held) if held else None

    def _ended(self, one: _Living) -> None:
        if one.lease is not None:
            self._former.append(one.lease)
        one.lease = None

    def _tell(self, what: str, of: str) -> None:
        self._story.append(f"{what} {of}")
