"""Receipts: what the holder of a lease proves itself by, a token of the call that leased and the id of the task."""

from __future__ import annotations

import itertools
import re
import secrets

from gotasks.broker import Envelope, Lease, Write
from gotasks_sql.rows import Held, Taken, microseconds

#: A token has 63 bits: those of the broker object, chosen at random, and the number of its call.
_SESSION_BITS, _CALL_BITS = 35, 28

_RECEIPT = re.compile("[0-9a-f]{16}")


class Tokens:
    """What marks the leases of one broker object, and of those that its process was forked from. Thread-safe."""

    def __init__(self) -> None:
        self._refused: frozenset[int] = frozenset()
        self._begin()

    def _begin(self) -> None:
        self._session: int = secrets.randbits(_SESSION_BITS)
        self._calls = itertools.count()

    def after_fork(self) -> None:
        """In the child: the leases until now are the parent's."""
        self._refused |= {self._session}
        self._begin()

    def new(self) -> int:
        """What marks the leases of one call: never used before, and its upper bits are this object's."""
        call: int = next(self._calls) & (2**_CALL_BITS - 1)
        return (self._session << _CALL_BITS) | call

    def is_refused(self, lease: Lease) -> bool:
        """Whether this lease is the parent's."""
        return bool(self._refused) and token_of(lease) >> _CALL_BITS in self._refused


def receipt_of(token: int, task_id: str) -> str:
    """The receipt of a lease of this task."""
    return f"{token:016x}.{task_id}"


def token_of(lease: Lease) -> int:
    """The token in a receipt; -1, which no task has, if it's no receipt of this task."""
    found = _RECEIPT.match(lease.receipt)
    token = int(found[0], 16) if found else -1
    return token if token < 2**63 and lease.receipt == receipt_of(token, lease.envelope.id) else -1


def lease_of(taken: Taken, queue: str, token: int, deadline: float) -> Lease:
    """The lease of a task that was claimed."""
    key = taken.unique_key
    return Lease(
        envelope=Envelope(
            id=taken.id,
            queue=queue,
            body=taken.body,
            priority=-taken.rank,
            unique=None if key is None else bytes(key).decode("utf-8", "surrogatepass"),
        ),
        receipt=receipt_of(token, taken.id),
        deaths=taken.deaths,
        deadline=deadline,
    )


def held_by(write: Write) -> Held:
    """The task under a write's lease, and what is to be written."""
    lease = write.lease
    return Held(
        lease.envelope.id, token_of(lease), write.seq, write.body, microseconds(write.delay), write.queue
    )
