"""Settler: the writes under a lease, each of which ends it. For the I/O thread."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from gotasks.broker import Write
from gotasks_rabbitmq.answers import Answers
from gotasks_rabbitmq.closed import Closed
from gotasks_rabbitmq.leases import Failures, Held
from gotasks_rabbitmq.link import Link, Linked
from gotasks_rabbitmq.names import Names
from gotasks_rabbitmq.publisher import Stamps

logger = logging.getLogger("gotasks")

#: A commit that is answered later than that isn't believed. Where a queue doesn't answer a channel that is new to it,
#: the server drops the message after 65 s (net_ticktime and 5), goes on with the ack, and says all is well. Seconds.
_BELIEVED = 30.0

_Writes = Sequence[tuple[Held, Write]]
_Failed = dict[str, BaseException]


class _CutOff(NamedTuple):
    """A hop whose end nobody has seen.

    `boot`: of the server, see `Boot`; None if it is to be stored, whatever the server has been through: no queue took
    the new body, or it was stored without an answer. `again`: of what is stored next, see `Held`.
    """

    boot: bytes | None
    again: bool


class Settler:
    """Puts tasks back, ends or moves them, many at once. Each of its calls returns the receipts that don't hold.

    It raises why one of the writes failed: then each of them was carried out or wasn't.
    """

    def __init__(self, holding: Linked, storing: Linked, names: Names, stamps: Stamps) -> None:
        self._holding = holding
        self._storing = storing
        self._names = names
        self._stamps = stamps
        self._cut_off: dict[str, _CutOff] = {}  #: by receipt
        self._one = asyncio.Lock()

    async def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        """Put the tasks back with their new bodies."""
        await self._store_again(writes)
        return await self._write(writes, self._put_back)

    async def ack(self, writes: Sequence[Write]) -> frozenset[str]:
        """End the tasks."""
        return await self._write(writes, self._settle)

    async def release(self, writes: Sequence[Write]) -> frozenset[str]:
        """Put the tasks back, or into other queues."""
        await self._store_again(writes)
        return await self._write(writes, self._release)

    async def _store_again(self, writes: Sequence[Write]) -> None:
        """Store the new bodies that are nowhere, as far as can be known, since their commits were cut off.

        A transaction is carried out as a whole, whatever becomes of the client. But the server's log may have the ack
        before the message (it puts messages off, and nothing else), and a server that is killed between the two comes
        back without either. So what was under way then is stored again. It may be there twice with that; so no step of
        the second copy is begun that mustn't be begun twice, see `Held.again`.
        """
        if not any(write.lease.receipt in self._cut_off for write in writes):
            return
        async with self._one:
            for write in writes:
                receipt, envelope = write.lease.receipt, write.lease.envelope
                if receipt not in self._cut_off or write.queue not in (None, envelope.queue):
                    continue
                (boot, again), link = self._cut_off[receipt], await self._holding.get()
                if write.lease in link.leases:
                    continue  # it is stored as the first time
                crashed = boot is not None and boot != await link.boot.name()
                deleted = await link.queues.ready(envelope.queue) is None  # and with it whatever was there
                if deleted or crashed or boot is None:
                    again = again or boot is not None  # if it wasn't returned, somebody may have begun it
                    storing, task = await self._storing.get(), (envelope.id, write.body)
                    await self._store(storing, envelope.queue, task, receipt, again=again)
                    storing.bell.ring(envelope.queue)
                    logger.warning(
                        "RabbitMQ didn't put task %s back into %r, or may not have, so it was stored again",
                        *(envelope.id, envelope.queue),
                    )
                else:  # it is there, and only the answer was lost
                    self._cut_off.pop(receipt, None)

    async def _store(
        self, link: Link, queue: str, task: tuple[str, bytes], receipt: str, *, again: bool
    ) -> None:
        """Store what is nowhere. Where that fails it's done again, marked if this one may have been stored."""
        self._cut_off[receipt] = _CutOff(None, again=again)
        await link.queues.ensure(queue)
        self._cut_off[receipt] = _CutOff(None, again=True)
        await link.publisher.store(queue, [task], again=again)
        self._cut_off.pop(receipt, None)

    async def _write(
        self,
        writes: Sequence[Write],
        carry_out: Callable[[Link, _Writes], Coroutine[Any, Any, _Failed]],
    ) -> frozenset[str]:
        link = self._holding.now
        if link is None:
            return frozenset(each.lease.receipt for each in writes)
        here = link

        async def on_link(writes: _Writes) -> Failures:
            await here.connection.unblocked()
            return await carry_out(here, writes)

        return await here.leases.write(writes, on_link)

    async def _put_back(self, link: Link, writes: _Writes) -> _Failed:
        """Each new body into the same queue and the old one out of it, in one transaction; why some failed."""
        failures = await self._commit(link, writes, put_back=True)
        for held, write in writes:
            if held.nowhere and held.receipt not in failures:
                tried = self._cut_off.get(held.receipt)
                again = held.again if tried is None else tried.again
                try:
                    await self._store(link, held.queue, (held.task_id, write.body), held.receipt, again=again)
                except Exception as error:
                    failures[held.receipt] = error
        for queue in {held.queue for held, _ in writes}:
            link.bell.ring(queue)
        return failures

    async def _settle(self, link: Link, writes: _Writes) -> _Failed:
        return await self._commit(link, writes, put_back=False)

    async def _commit(self, link: Link, writes: _Writes, *, put_back: bool) -> _Failed:
        """A transaction for each of them, all at once."""
        writes = [each for each in writes if not each[0].nowhere]  # else it was acked before
        boot = await link.boot.name() if put_back else b""
        answers: Answers[tuple[Held, int], None] = Answers(len(writes))
        frames = []
        for held, write in writes:
            lane, stamp = held.lane, 0
            try:
                if put_back:
                    stamp = self._stamps.next()
                    name = self._names.tasks(held.queue)
                    frames.append(lane.publish(name, held.task_id, stamp, write.body, again=held.again))
                frames.append(lane.ack(held.tag))
                frames.append(lane.commit(answers, (held, stamp)))
            except Closed as closed:
                answers.add((held, 0), closed)  # and nothing was sent
        link.connection.send(b"".join(frames))
        sent = time.monotonic()
        failures: _Failed = {}
        for (held, stamp), answer in await answers.all():
            if answer is not None:
                failures[held.receipt] = answer
                if stamp:
                    returned = stamp in held.lane.returned
                    self._cut_off[held.receipt] = _CutOff(None if returned else boot, again=held.again)
            elif stamp in held.lane.returned:
                # Somebody has deleted the queue. What was in it is gone, but this one is still here.
                held.lane.returned.discard(stamp)
                held.nowhere = True
                link.queues.gone(held.queue)
            elif stamp and (took := held.lane.committed - sent) > _BELIEVED:
                held.nowhere = True
                self._cut_off[held.receipt] = _CutOff(None, again=True)
                logger.warning(
                    "RabbitMQ took %.0f s to put task %s back into %r, and may not have done it: it is stored again",
                    *(took, held.task_id, held.queue),
                )
        return failures

    async def _release(self, link: Link, writes: _Writes) -> _Failed:
        moves = [(held, write) for held, write in writes if write.queue not in (None, held.queue)]
        stays = [(held, write) for held, write in writes if write.queue in (None, held.queue)]
        failures = await self._put_back(link, stays) if stays else {}
        if moves:
            failures |= await self._move(link, moves)
        return failures

    async def _move(self, link: Link, writes: _Writes) -> _Failed:
        # Not in the transaction: that one would be committed though the other queue refuses the task.
        async def store(held: Held, write: Write) -> None:
            if not held.moved:
                storing = await self._storing.get()
                await storing.publisher.store(str(write.queue), [(held.task_id, write.body)])
                held.moved = True

        stored = await asyncio.gather(*(store(*each) for each in writes), return_exceptions=True)
        failures = {
            held.receipt: error for (held, _), error in zip(writes, stored, strict=True) if error is not None
        }
        failures |= await self._settle(link, [each for each in writes if each[0].receipt not in failures])
        for queue in {str(write.queue) for held, write in writes if held.moved}:
            link.bell.ring(queue)
        return failures
