"""Names: the queues of a namespace on the server.

    {namespace}:{queue}              the tasks of a queue
    {namespace}:{queue}:wake         tokens that wake who waits for a task of it
    {namespace}:{queue}:making       whose it is makes the queue, or looks whether it's right
    {namespace}::flush:{0..63}       is there for a moment when a queue was made; see `queues.py`

A colon is in no namespace and in no queue, so no two of these are the same.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from dataclasses import dataclass

#: Namespace → the queues of it that were used in this process: AMQP can list none, and a test has to remove its own.
USED: dict[str, set[str]] = defaultdict(set)


@dataclass(frozen=True)
class Names:
    """The names of one namespace."""

    namespace: str

    def tasks(self, queue: str) -> str:
        """Where the tasks of `queue` are."""
        USED[self.namespace].add(queue)
        return f"{self.namespace}:{queue}"

    def wake(self, queue: str) -> str:
        """Where the tokens for `queue` are."""
        return f"{self.namespace}:{queue}:wake"

    def making(self, queue: str) -> str:
        """The lock for making `queue`."""
        return f"{self.namespace}:{queue}:making"

    def flush(self) -> str:
        """One of a few: each name that was ever used costs the server a little memory for good."""
        return f"{self.namespace}::flush:{secrets.randbelow(64)}"
