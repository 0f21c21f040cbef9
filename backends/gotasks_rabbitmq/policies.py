"""Policies: what operators have set for queues by their names. AMQP doesn't tell of it, and some of it loses tasks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gotasks.errors import ConfigurationError

#: What a key would do to tasks. `{gone}`: thrown away, or moved to where no worker looks.
_LOSES = {
    "max-length": "of more tasks than that the oldest are {gone}",
    "max-length-bytes": "of more bytes than that the oldest tasks are {gone}",
    "message-ttl": "a task that waits for more milliseconds than that is {gone}",
    "expires": "the queue is deleted with its tasks when no worker has asked for one for so many milliseconds",
    "delivery-limit": "a task whose workers die more often than that is {gone}",
}

#: The same where the server refuses what is too much. In a transaction it refuses that, and takes the ack all the same.
_REFUSED = "what comes beyond that is refused, and the task of a refused checkpoint is gone"

#: With one of these a policy isn't applied to quorum queues, none of it.
_FOR_OTHERS = frozenset(
    {"ha-mode", "ha-params", "ha-sync-mode", "ha-promote-on-shutdown", "ha-promote-on-failure"}
    | {"queue-mode", "queue-master-locator", "max-priority"}
    | {"max-age", "stream-max-segment-size-bytes", "initial-cluster-size"}
)

#: With nothing but these it is applied, on every version. Of others that can't be known.
_FOR_QUORUM = frozenset(
    {"delivery-limit", "overflow", "dead-letter-exchange", "dead-letter-routing-key", "dead-letter-strategy"}
    | {"max-in-memory-length", "max-in-memory-bytes", "queue-leader-locator", "target-group-size"}
    | {"consumer-timeout", "delayed-retry-type", "delayed-retry-min", "delayed-retry-max"}
)

#: What `apply-to` says of those that aren't for our queues.
_ELSEWHERE = frozenset({"exchanges", "classic_queues", "streams"})

#: What a pattern may have that means something else in Python.
_OTHERWISE = ("[[", "[:", "{,")


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy as the management API shows it."""

    name: str
    pattern: str
    definition: dict[str, Any]
    priority: float = 0
    apply_to: str = msgspec.field(name="apply-to", default="all")

    def matches(self, queue: str) -> bool | None:
        """Whether it is for a queue of this name; None if its pattern is one that Python can't read."""
        if self.apply_to in _ELSEWHERE:
            return False
        if any(each in self.pattern for each in _OTHERWISE):
            return None
        try:
            return re.search(self.pattern, queue) is not None
        except re.error:
            return None

    def losses(self) -> Iterator[tuple[str, str]]:
        """The keys that lose tasks, and what each of them does."""
        exchange = self.definition.get("dead-letter-exchange")
        gone = "thrown away" if exchange is None else f"moved to exchange {exchange!r}, where no worker looks"
        refused = str(self.definition.get("overflow")).startswith("reject-publish")
        for key in sorted(_LOSES.keys() & self.definition.keys()):
            value = self.definition[key]
            if key == "delivery-limit" and value < 0:  # none, as we declare it
                continue
            what = _REFUSED if refused and key.startswith("max-length") else _LOSES[key].format(gone=gone)
            yield key, f"{key}={value}: {what}"


def hazard(kind: str, policies: Sequence[Policy], queue: str) -> str | None:
    """A sentence about the policy of this kind that would lose tasks of the queue; None if there is none.

    The server applies the one with the highest priority among those that match, and any one of equals. What can't be
    known of a policy is taken for the worse.
    """
    applied = float("-inf")
    for policy in sorted(policies, key=lambda each: each.priority, reverse=True):
        if policy.priority < applied:
            break
        matches = policy.matches(queue)
        if matches is False or not _FOR_OTHERS.isdisjoint(policy.definition):
            continue
        losses = dict(policy.losses())
        if losses:
            would, unread = ("would", "") if matches else ("may", ", which can't be read here,")
            return (
                f"{kind} {policy.name!r} {would} lose tasks of queue {queue!r} ({'; '.join(losses.values())}). Take "
                f"{' and '.join(losses)} out of it, change its pattern {policy.pattern!r}{unread} or give the queue "
                f"another {kind} with a higher priority than {policy.priority:g}"
            )
        if matches and policy.definition.keys() <= _FOR_QUORUM:
            applied = policy.priority
    return None


class Policies:
    """What one connection knows of them. For the I/O thread."""

    def __init__(self, shown: str, ask: Callable[[], Mapping[str, Sequence[Policy]]]) -> None:
        """`ask` gives the policies by their kind, and takes its time. `shown`: who is asked."""
        self._shown = shown
        self._ask = ask
        self._asking: asyncio.Future[Mapping[str, Sequence[Policy]]] | None = None
        self._harmless: set[str] = set()

    async def check(self, queue: str) -> None:
        """See that none loses tasks of the queue of this name; asks once, until the answer is that none does.

        Raises ConfigurationError, and what `ask` raises.
        """
        if queue in self._harmless:
            return
        asking = self._asking
        if asking is None or asking.done():
            asking = self._asking = asyncio.get_running_loop().run_in_executor(None, self._ask)
        for kind, policies in (await asyncio.shield(asking)).items():
            if (sentence := hazard(kind, policies, queue)) is not None:
                raise ConfigurationError(f"{self._shown}: {sentence}")
        self._harmless.add(queue)
