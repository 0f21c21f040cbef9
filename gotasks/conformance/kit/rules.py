"""Rules: what the contract asks of who uses a broker, one by one. `StrictBroker` applies them to every call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from gotasks.broker import Capability, Limits, Write
from gotasks.errors import InvalidName
from gotasks.task import check_queue_name, check_task_id


class Misuse(AssertionError):
    """A rule of the contract was broken by who uses the broker, not by the broker."""


class Rules:
    """The rules for one broker. Each check raises Misuse; `misuses` are all that were raised."""

    def __init__(self, capabilities: Capability, limits: Limits) -> None:
        self.capabilities, self.limits = capabilities, limits
        self.misuses: list[Misuse] = []

    def broken(self, sentence: str) -> Misuse:
        """The error to raise: `sentence` says which rule was broken. It is kept, whoever swallows it."""
        misuse = Misuse(sentence)
        self.misuses.append(misuse)
        return misuse

    def need(self, capability: Capability, what: str) -> None:
        """`what` is only for brokers that claim `capability`."""
        if capability not in self.capabilities:
            raise self.broken(f"{what}, and the broker doesn't claim {capability.name}")

    def batch(self, what: str, queues: Sequence[str]) -> None:
        """One call holds items of one queue, and no more than the broker takes."""
        if len(queues) > self.limits.max_batch:
            raise self.broken(f"{what} of {len(queues)} items; limits.max_batch is {self.limits.max_batch}")
        for each in set(queues):
            self.queue(each)
        if len(set(queues)) > 1:
            raise self.broken(f"{what} of items of several queues: {', '.join(sorted(set(queues)))}")

    def ids(self, ids: Collection[str]) -> None:
        """They are well formed. There may be any number: `max_batch` doesn't count them."""
        for each in ids:
            self.id(each)

    def id(self, task_id: str) -> None:
        self._name(check_task_id, task_id)

    def queue(self, queue: str) -> None:
        self._name(check_queue_name, queue)

    def _name(self, check: Callable[[str], str], name: str) -> None:
        try:
            check(name)
        except InvalidName as error:
            raise self.broken(str(error)) from None

    def delay(self, delay: float) -> None:
        if delay:
            self.need(Capability.DELAY, "a delay")
        most = self.limits.max_delay
        if not delay >= 0 or (most is not None and delay > most):
            raise self.broken(f"a delay of {delay:g} s; limits.max_delay is {most}")

    def size(self, what: str, body: bytes, *, room: int = 0) -> None:
        """A body fits; with `room` it fits also after a bury has added so many bytes."""
        most = self.limits.max_payload
        if most is not None and len(body) > most - room:
            left = f" less {room} for what a bury adds" if room else ""
            raise self.broken(f"{what} of {len(body)} bytes; limits.max_payload is {most}{left}")

    def plain(self, what: str, write: Write) -> None:
        """Only a release puts off, or moves."""
        if write.delay or write.queue is not None:
            raise self.broken(f"{what} with a delay or a queue, which are for release only")

    def keep_for(self, what: str, keep_for: float) -> None:
        if not keep_for >= 0:
            raise self.broken(f"{what}(keep_for={keep_for:g}): it is 0 at least")
        if keep_for > 0:
            self.need(Capability.RECORDS, f"{what}(keep_for={keep_for:g})")

    def lease_for(self, what: str, lease_for: float) -> None:
        most = self.limits.max_lease
        if not lease_for > 0 or (most is not None and lease_for > most):
            raise self.broken(
                f"{what}(lease_for={lease_for:g}); it is above 0, and limits.max_lease is {most}"
            )
