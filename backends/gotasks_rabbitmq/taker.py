"""Taker: leases what is ready, as much as is asked for in one go. For the I/O thread."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time

from gotasks.broker import Envelope, Lease
from gotasks_rabbitmq.answers import Answers
from gotasks_rabbitmq.closed import NOT_FOUND, Closed
from gotasks_rabbitmq.lane import Delivery, Lane
from gotasks_rabbitmq.leases import Held
from gotasks_rabbitmq.link import Link, Linked
from gotasks_rabbitmq.names import Names

#: The header of what was stored again; see `Held.again`.
AGAIN = "gt-again"

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Taker:
    """Asks on many lanes at once: the server answers one question of a channel after the other."""

    def __init__(self, holding: Linked, names: Names, timeout: float) -> None:
        """`timeout`: seconds that a call may take."""
        self._holding = holding
        self._names = names
        self._timeout = timeout
        self._left: dict[str, int] = {}

    def left(self, queue: str) -> int:
        """How many tasks were ready when the last one was taken."""
        return self._left.get(queue, 0)

    async def take(self, queue: str, limit: int) -> list[Lease]:
        """Lease what is ready now: one first, or as many as there were the last time, and then the rest.

        No more than the server allows lanes.
        """
        link = await self._holding.get()
        await link.connection.unblocked()
        await link.queues.ensure(queue)
        found: list[tuple[Held, Delivery]] = []
        soon = time.monotonic() + self._timeout / 4  # what was found isn't put at risk for more
        count = min(limit, max(self.left(queue), 1))
        try:
            while count > 0 and (not found or time.monotonic() < soon):
                lanes = await link.pool.take(count)
                if not lanes:
                    break
                before = len(found)
                errors = await self._get(link, queue, lanes, found)
                full = len(found) - before == len(lanes)
                left = self._left[queue] = min(each.left for _, each in found[before:]) if full else 0
                if errors and not any(link.leases.holds(held) for held, _ in found):
                    raise errors[0]
                count = 0 if errors else min(limit - len(found), left)
        except BaseException:  # the caller's time is up, for example: these are for nobody
            for held, _ in found:
                held.lane.abandon()
            raise
        found = [each for each in found if link.leases.holds(each[0])]
        found.sort(key=lambda each: _number(each[1].headers.get("gt-n")))
        return [_lease(*each) for each in found]

    async def _get(
        self, link: Link, queue: str, lanes: list[Lane], found: list[tuple[Held, Delivery]]
    ) -> list[Closed]:
        """Ask for a task on each of these at once, and add to `found` those that come; why others don't."""
        name = self._names.tasks(queue)
        answers: Answers[Lane, Delivery | None] = Answers(len(lanes))
        frames = []
        for lane in lanes:
            try:
                frames.append(lane.get(name, answers, lane))
            except Closed as closed:
                answers.add(lane, closed)
        link.connection.send(b"".join(frames))
        try:
            answered = await answers.all()
        except asyncio.CancelledError:
            for lane in lanes:
                lane.abandon()  # what comes on it now is for nobody
            raise
        errors = []
        for lane, answer in answered:
            if isinstance(answer, Closed):
                errors.append(answer)
            elif answer is None:
                link.pool.give_back(lane)
            elif lane.closed is not None:  # while the others were waited for
                errors.append(lane.closed)
            else:
                again = bool(_number(answer.headers.get(AGAIN)))
                held = link.leases.add(queue, _id(answer), lane, answer.tag, again=again)
                found.append((held, answer))
        if any(each.code == NOT_FOUND for each in errors):
            link.queues.gone(queue)  # it was deleted since; the new one is empty
            await link.queues.ensure(queue)
        return [each for each in errors if each.code != NOT_FOUND]


def _id(delivery: Delivery) -> str:
    """The id of a task; of what isn't one, an id that is always the same."""
    name = delivery.message_id
    if name is not None and _ID.fullmatch(name):
        return name
    return f"raw-{hashlib.sha256(delivery.body).hexdigest()[:32]}"


def _number(value: object) -> int:
    return int(value) if isinstance(value, int) else 0  # pika has a class of its own for some


def _lease(held: Held, delivery: Delivery) -> Lease:
    headers = delivery.headers
    # From RabbitMQ 4.3 on the second counts some ends only, and the first counts all.
    deaths = _number(headers.get("x-acquired-count", headers.get("x-delivery-count", 0)))
    # What a dead letter exchange brings back is counted anew, and nothing else tells of its past.
    past = headers.get("x-death")
    for each in past if isinstance(past, list) else ():
        deaths += _number(each.get("count")) if isinstance(each, dict) else 0
    # Of one that was stored again another copy may have been begun, so it has died once, if nothing says more.
    deaths = max(deaths, int(held.again))
    envelope = Envelope(id=held.task_id, queue=held.queue, body=delivery.body)
    return Lease(envelope=envelope, receipt=held.receipt, deaths=deaths, deadline=float("inf"))
