"""Run: one delivery of a task to this process, from `acquire` to its last write."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from enum import Enum, IntEnum
from queue import SimpleQueue

from gotasks.broker import Lease, Write
from gotasks.events import Event
from gotasks.task import Task


class Answer(Enum):
    """What the broker said to a write."""

    HELD = "held"
    LOST = "lost"
    REJECTED = "rejected"


class Kind(IntEnum):
    """The three writes under a lease, the most urgent first: slots wait for checkpoints, nobody for acks."""

    CHECKPOINT = 0
    RELEASE = 1
    ACK = 2


class Run:
    """The state of one delivery. A slot works on it; the heart and the committer look at it from their threads."""

    __slots__ = (
        "_lock",
        "body",
        "cancel",
        "deadline",
        "deferred",
        "ended",
        "holds_token",
        "id",
        "lease",
        "limit_at",
        "queue",
        "refusals",
        "revoked",
        "seq",
        "settling",
        "started",
        "task",
        "timed_out",
        "tried",
        "unfenced",
    )

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.id = lease.envelope.id
        self.queue = lease.envelope.queue
        self.task: Task | None = None  #: the durable state, and the tries since; None until the body was read
        #: `task` as stored; None where only memory has the latest
        self.body: bytes | None = lease.envelope.body
        self.started = self.tried = time.monotonic()  #: when it was taken, and when the last try began
        self.deadline = lease.deadline  #: monotonic; moved on by the heart
        self.limit_at = math.inf  #: monotonic; when the running try has had its time
        self.seq = 0
        self.deferred = False  #: to be given back unless it must be buried, since a suspect runs
        self.ended: threading.Event | None = None  #: of a suspect: set when its slot is free again
        self.refusals = 0  #: settling writes that the broker rejected
        self.revoked = False  #: the task is somebody else's
        self.timed_out = False  #: the running try had its time, and its thread can't be stopped
        self.unfenced = False  #: it leaves the broker before its first step: there is no lease to lose
        self.settling = False  #: the write that ends the lease is on its way
        self.holds_token = False  #: it is one of the last writes that may be unanswered at once
        self.cancel: Callable[[], None] | None = None  #: cancels the running async handler
        self._lock = threading.Lock()

    @property
    def over(self) -> bool:
        """Nothing that the running handler does counts any more."""
        return self.revoked or self.timed_out

    @property
    def job(self) -> str:
        """The job's name; empty while the body hasn't been read."""
        return self.task.job_name if self.task is not None else ""

    @property
    def known(self) -> Task:
        """`task`, once the body was read."""
        assert self.task is not None
        return self.task

    def write(self, body: bytes, *, delay: float = 0.0, queue: str | None = None) -> Write:
        """The next write under this lease."""
        self.seq += 1
        return Write(lease=self.lease, body=body, seq=self.seq, delay=delay, queue=queue)

    def revoke(self) -> bool:
        """The lease is lost: no step follows, and an async handler is cancelled. False if it ended otherwise."""
        with self._lock:
            if self.over or self.settling or self.unfenced:
                return False
            self.revoked = True
            cancel = self.cancel
        if cancel is not None:
            cancel()
        return True

    def begin_try(self, limit_at: float) -> None:
        """A handler is about to be called; its time is up at `limit_at` (monotonic)."""
        self.limit_at = limit_at
        self.tried = time.monotonic()

    def end_try(self) -> bool:
        """The handler has returned. False if the run was over by then: the result doesn't count."""
        with self._lock:
            self.limit_at = math.inf
            self.cancel = None
            return not self.over

    def expire_try(self) -> bool:
        """Declare the running try out of time if its limit has passed.

        False if it hasn't, or the handler has returned, or the run ended otherwise.
        """
        with self._lock:
            if self.over or self.settling or self.limit_at > time.monotonic():
                return False
            self.timed_out = True
            cancel = self.cancel
        if cancel is not None:
            cancel()
        return True

    def settle(self) -> bool:
        """Claim the write that ends the lease. False if the lease is lost, or it was claimed before."""
        with self._lock:
            if self.revoked or self.settling:
                return False
            self.settling = True
            return True

    def unsettle(self) -> None:
        """The write that was claimed was refused: another one has to end the lease."""
        self.settling = False


class Commit:
    """A write on its way to the broker, and what is to happen when it was answered."""

    __slots__ = ("alone", "answers", "attempts", "due", "fact", "keep_for", "kind", "run", "write")

    def __init__(
        self, kind: Kind, run: Run, write: Write, *, fact: Event | None = None, keep_for: float = 0.0
    ) -> None:
        self.kind = kind
        self.run = run
        self.write = write
        self.fact = fact  #: emitted when the write is known to have been carried out
        self.keep_for = keep_for
        self.attempts = 0
        self.alone = False  #: to be sent in a call of its own
        self.due = 0.0  #: monotonic; not to be sent before
        self.answers: SimpleQueue[Answer] | None = None  #: where a slot waits for the answer, if one does
