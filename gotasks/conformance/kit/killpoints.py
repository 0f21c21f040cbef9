"""Kill-points: named places in a worker process, at which it ends or stands still if the environment says so.

    GOTASKS_KILLPOINT=after_checkpoint:2        SIGKILL at the second passing
    GOTASKS_KILLPOINT=before_ack:1:stop         SIGSTOP: it stands there until SIGCONT
    GOTASKS_KILLPOINT=acquired:1:hold           the thread that is there waits until the worker is told to stop

The engine knows nothing of them: they are made of its events and of a wrapper around its broker (`PointedBroker`),
which only the suite's workers have (`kit.jobs`). `POINTS` has the names, in the order in which a task meets them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from gotasks import codec
from gotasks.broker import Broker, Lease, QueueStats, Write
from gotasks.conformance.kit.history import Writer
from gotasks.conformance.kit.wrapped import WrappedBroker
from gotasks.errors import ConfigurationError
from gotasks.events import (
    Checkpointed,
    Event,
    LeaseLost,
    StepDone,
    StepRetried,
    TaskBuried,
    TaskCrashed,
    TaskReleased,
    TaskStarted,
    TaskSucceeded,
)

if TYPE_CHECKING:
    from typing_extensions import Self

#: The environment variable.
VARIABLE = "GOTASKS_KILLPOINT"

#: name → where it is
POINTS: Mapping[str, str] = {
    "before_acquire": "the fetcher is about to ask for tasks",
    "acquired": "the server has leased tasks and its reply is here; the engine hasn't seen it",
    "crashed": "the engine has read a task and seen that its last lease ended unsettled",
    "admitted": "the engine has decided that the task may run here; its next step hasn't begun",
    "in_step": "a handler has begun; its start is in the history",
    "step_done": "a handler has returned or raised; nothing was written",
    "retried": "a handler has raised and will be tried again",
    "before_extend": "the heart is about to extend leases",
    "after_extend": "the server has extended them; the engine hasn't seen the reply",
    "before_checkpoint": "a checkpoint is about to be sent",
    "after_checkpoint": "the server has confirmed it; the engine hasn't seen the reply",
    "checkpointed": "the engine knows that it is durable; the next step hasn't begun",
    "before_ack": "the last write of a finished task is about to be sent",
    "after_ack": "the server has confirmed it; the engine hasn't seen the reply",
    "succeeded": "the engine knows that the task has ended",
    "before_release": "a task is about to be given back, or to be moved to the fatal queue",
    "after_release": "the server has confirmed that; the engine hasn't seen the reply",
    "released": "the engine knows that it was given back",
    "buried": "the engine knows that it was moved (without ATOMIC_MOVE: marked to be moved)",
    "lost": "the engine has learnt that a lease is somebody else's",
}

_EVENTS: Mapping[type[Event], str] = {
    TaskCrashed: "crashed",
    TaskStarted: "admitted",
    StepDone: "step_done",
    StepRetried: "retried",
    Checkpointed: "checkpointed",
    TaskSucceeded: "succeeded",
    TaskReleased: "released",
    TaskBuried: "buried",
    LeaseLost: "lost",
}

#: How long a thread is held at the most: only a row that has failed lets it wait. Seconds.
_LONGEST_HOLD = 60.0

#: A call of the broker takes no longer; a fetcher waits a second. Seconds.
_LONGEST_CALL = 5.0


class _Gate:
    """Shut while a process is to stand still: none of its threads is inside a call of the broker then.

    One that is stopped inside may hold a lock of a broker without a server, and with it everybody else.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._shut = False

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call of the broker is inside the block."""
        with self._changed:
            self._changed.wait_for(lambda: not self._shut)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def shut(self) -> Iterator[None]:
        """No call is inside within the block."""
        with self._changed:
            self._shut = True
            self._changed.wait_for(lambda: not self._inside, _LONGEST_CALL)
        try:
            yield
        finally:
            with self._changed:
                self._shut = False
                self._changed.notify_all()


class Killpoint:
    """The point of this process, if it has one. Safe from any thread."""

    def __init__(self, history: Writer, name: str = "", at: int = 1, action: str = "kill") -> None:
        """What happens when the point `name` is passed for the `at`-th time: "kill", "stop" or "hold"."""
        self.name = name
        self._at = at
        self._action = action
        self._history = history
        self._passed = 0
        self._lock = threading.Lock()
        self._told_to_stop = threading.Event()
        self._gate = _Gate()

    def call(self) -> AbstractContextManager[None]:
        """A call of the broker is inside the block."""
        return self._gate.call()

    @classmethod
    def of(cls, text: str | None, history: Writer) -> Self:
        """What the environment variable says. Raises ConfigurationError."""
        if not text:
            return cls(history)
        name, _, rest = text.partition(":")
        at, _, action = rest.partition(":")
        if name not in POINTS or not at.isdecimal() or action not in ("", "kill", "stop", "hold"):
            raise ConfigurationError(f"{VARIABLE} is NAME:N, NAME:N:stop or NAME:N:hold, not {text!r}")
        return cls(history, name, int(at), action or "kill")

    def passing(self, name: str) -> None:
        """This point is passed."""
        if name != self.name:
            return
        with self._lock:
            self._passed += 1
            if self._passed != self._at:
                return
        self._history.write("killpoint", note=name)
        if self._action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._action == "stop":
            with self._gate.shut():
                # To this thread, so that not one instruction follows before the process stands.
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        else:
            self._told_to_stop.wait(_LONGEST_HOLD)

    def told_to_stop(self) -> None:
        """The worker stops: let go of what is held."""
        self._told_to_stop.set()

    def listen(self, event: Event) -> None:
        """A listener for `app.events`."""
        name = _EVENTS.get(type(event))
        if name is not None:
            self.passing(name)


class PointedBroker(WrappedBroker):
    """Any broker, with the kill-points around its calls. What the server says of checkpoints is in the history:
    "confirmed" with the index of the next step; and of every write that it refuses: "refused" with its kind.
    """

    def __init__(self, inner: Broker, point: Killpoint, history: Writer) -> None:
        super().__init__(inner)
        self._point = point
        self._history = history

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        self._point.passing("before_acquire")
        with self._point.call():
            leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        if leases:
            self._point.passing("acquired")
        return leases

    def interrupt(self, queue: str) -> None:
        self._point.told_to_stop()
        super().interrupt(queue)

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        if leases:
            self._point.passing("before_extend")
        with self._point.call():
            lost = super().extend(leases, lease_for=lease_for)
        if leases:
            self._point.passing("after_extend")
        return lost

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        self._point.passing("before_checkpoint")
        with self._point.call():
            lost = super().checkpoint(writes)
        for write in writes:
            if write.lease.receipt not in lost:
                step = codec.decode(write.body).current_handler_index
                self._history.write("confirmed", task=write.lease.envelope.id, step=step)
        self._note("checkpoint", writes, lost)
        self._point.passing("after_checkpoint")
        return lost

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self._point.passing("before_ack")
        with self._point.call():
            lost = super().ack(writes, keep_for=keep_for)
        self._note("ack", writes, lost)
        self._point.passing("after_ack")
        return lost

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self._point.passing("before_release")
        with self._point.call():
            lost = super().release(writes)
        self._note("release", writes, lost)
        self._point.passing("after_release")
        return lost

    def stats(self, queue: str) -> QueueStats:
        with self._point.call():
            return super().stats(queue)

    def _note(self, kind: str, writes: Sequence[Write], lost: frozenset[str]) -> None:
        for write in writes:
            if write.lease.receipt in lost:
                self._history.write("refused", task=write.lease.envelope.id, note=kind)
