"""Session: a stream on a server, seen through one connection, and what can be done to it."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timezone
from typing import Any, NamedTuple, TypeVar

from nats.aio.msg import Msg

from gotasks_nats.address import Address
from gotasks_nats.clock import ServerClock
from gotasks_nats.entry import Entry, decoded
from gotasks_nats.view import Task, View, task
from gotasks_nats.wire import Wire

A = TypeVar("A")
B = TypeVar("B")

#: The server says that often that it's there, in seconds; nothing for three times as long is too long.
_HEARTBEAT = 5.0

#: A message that was stored arrives within that time, in seconds, if it's still there.
_SOON = 0.5

#: As many items of one call are under way at once.
_AT_ONCE = 64

_WRONG_SEQUENCE, _NOT_FOUND, _NO_STREAM, _NAME_IN_USE = 10071, 10037, 10059, 10058


class Overtaken(Exception):
    """The message that was to be changed isn't the last one of its task any more."""


class Stored(NamedTuple):
    """The last message of a task."""

    task: Task
    body: bytes


class Session:
    """Made and used on one event loop. When its connection breaks, it ends."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.wire = Wire(address)
        self.view = View()
        self.clock = ServerClock()
        self.settings: dict[str, Any] = {}  #: of the stream, as the server has them
        self._name = secrets.token_hex(8)
        self._feed = f"_INBOX.gotasks.{self._name}"
        self._deletes = f"$JS.API.STREAM.MSG.DELETE.{address.stream}"
        self._delivered = 0
        self._heard = time.monotonic()
        self._consumer = ""
        self._ticked: tuple[int, int] = (
            0,
            0,
        )  #: the last message of the clock: its sequence, when it was stored
        self._reaching: list[tuple[int, asyncio.Future[None]]] = []
        self._waiting: dict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._alarms: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._notices = 0
        self.wire.broken.add_done_callback(lambda _: self._tell())

    # -- its life -------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, make the stream if there is none, and see all that it holds. Raises BrokerUnavailable."""
        try:
            await self.wire.open()
            await self._find_stream()
            await self.wire.subscribe(f"{self.address.gone}*.*.*", self._was_removed)
            await self.wire.subscribe(self._feed, self._was_stored)
            consumer = {
                "deliver_subject": self._feed,
                "deliver_policy": "last_per_subject",
                "filter_subject": self.address.stored,
                "ack_policy": "none",
                "max_deliver": 1,
                "headers_only": True,
                "mem_storage": True,
                "flow_control": True,
                "idle_heartbeat": int(_HEARTBEAT * 1e9),
                "inactive_threshold": int(_HEARTBEAT * 3e9),
            }
            made = await self.api(
                f"CONSUMER.CREATE.{self.address.stream}",
                stream_name=self.address.stream,
                config={**consumer, "num_replicas": 1},
            )
            self._consumer = made["name"]
            self._heard = time.monotonic()
            self.background(self._watch())
            await self.sync()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of it."""
        if self._consumer and not self.wire.broken.done():
            with suppress(Exception):
                await self.wire.publish(
                    f"$JS.API.CONSUMER.DELETE.{self.address.stream}.{self._consumer}",
                    reply=f"{self._feed}.bye",
                )
        for each in list(self._tasks):
            each.cancel()
        await self.wire.close()

    @property
    def lost(self) -> bool:
        """Whether its connection is broken."""
        return not self.wire.alive

    def background(self, work: Any) -> None:
        """Do something that nobody waits for."""
        made = asyncio.ensure_future(work)
        self._tasks.add(made)
        made.add_done_callback(self._tasks.discard)

    async def _find_stream(self) -> None:
        stream = self.address.stream
        settings = {
            "name": stream,
            "description": "Tasks of gotasks, one message each",
            "subjects": [self.address.stored],
            "storage": "file",
            "retention": "limits",
            "discard": "new",  # a full stream refuses tasks; it must not throw away old ones
            "max_msgs_per_subject": -1,  # what was replaced is erased by whoever replaced it: see `remove`
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
            "max_consumers": -1,
            "num_replicas": self.address.replicas,
        }
        while True:
            found = await self.wire.ask(f"$JS.API.STREAM.INFO.{stream}")
            if _code(found) == _NO_STREAM:
                found = await self.wire.ask(f"$JS.API.STREAM.CREATE.{stream}", json.dumps(settings).encode())
            if _code(found) == _NAME_IN_USE:
                continue  # somebody else made it just now
            if "error" in found:
                raise self._refused(found)
            self.settings = found["config"]
            return

    # -- one task -------------------------------------------------------------------------------------

    async def last(self, id: str) -> Stored | None:
        """The task as the server has it at this moment."""
        asked = json.dumps({"last_by_subj": self.address.tasks + id}).encode()
        found = await self.wire.ask(f"$JS.API.STREAM.MSG.GET.{self.address.stream}", asked)
        if _code(found) == _NOT_FOUND:
            return None
        if "error" in found:
            raise self._refused(found)
        message = found["message"]
        entry = decoded(_headers(base64.b64decode(message.get("hdrs", ""))))
        if entry is None:
            return None
        body = base64.b64decode(message.get("data", ""))
        return Stored(task(id, message["seq"], _nanoseconds(message["time"]), entry), body)

    async def write(self, id: str, entry: Entry, body: bytes, *, instead_of: int) -> int:
        """Store a task instead of the message of this sequence (0: of none). Returns the new sequence.

        Raises Overtaken, TooLarge or BrokerUnavailable.
        """
        expected = {"Nats-Expected-Last-Subject-Sequence": str(instead_of)}
        headers = {**entry.headers(), **expected}
        answer = await self.wire.ask(self.address.tasks + id, body, headers=headers)
        if _code(answer) == _WRONG_SEQUENCE:
            raise Overtaken
        if "error" in answer:
            raise self._refused(answer)
        if instead_of:
            await self._erase(instead_of, reply=f"{self._feed}.erased")  # nobody waits for that
        return int(answer["seq"])

    async def remove(self, id: str, seq: int) -> None:
        """Remove the last message of a task, which has this sequence, and whatever is left before it.

        A server that is killed forgets a removal, and what the message had replaced would be the last one again. So
        each message is erased on the server's disk when another one has replaced it, what a client that died meanwhile
        has left goes here, and the last one goes last. The answer about that goes to all clients, so that no view keeps
        what is gone, whatever becomes of this one.
        """
        while (first := await self._first(id)) is not None and first < seq:
            await self.wire.ask(self._deletes, _json(seq=first))
        self._notices += 1
        token = f"{self.address.gone}{seq}.{id}.{self._name}{self._notices}"
        with self.wire.expecting(token) as answer:
            await self._erase(seq, reply=token)
            await self.wire.answer(answer)

    async def _first(self, id: str) -> int | None:
        """The sequence of the first message that a task has."""
        asked = _json(seq=1, next_by_subj=self.address.tasks + id)
        found = await self.wire.ask(f"$JS.API.STREAM.MSG.GET.{self.address.stream}", asked)
        if _code(found) == _NOT_FOUND:
            return None
        if "error" in found:
            raise self._refused(found)
        return int(found["message"]["seq"])

    async def _erase(self, seq: int, *, reply: str) -> None:
        """Have a message erased; the answer goes elsewhere."""
        await self.wire.publish(self._deletes, _json(seq=seq), reply=reply)

    async def end(self, id: str, seq: int, entry: Entry, body: bytes) -> None:
        """Store how a task ended instead of the message of this sequence, and remove it if nothing is to be kept.

        Raises as `write` does.
        """
        keep = entry.lasts > 0
        ended = await self.write(id, entry, body if keep else b"", instead_of=seq)
        if not keep:
            await self.remove(id, ended)

    # -- all tasks ------------------------------------------------------------------------------------

    async def sync(self) -> None:
        """See all that was stored before this call, and what time it is."""
        sent = time.monotonic()
        answer = await self.wire.ask(self.address.clock)
        if "error" in answer:
            if _code(answer) == _NO_STREAM:
                raise self._refused(answer)
            return  # it is full; what was seen so far is all that can be had
        await self.reach(int(answer["seq"]))
        seq, stamp = self._ticked
        if seq == answer["seq"]:
            self.clock.sent(stamp, sent)
        for each in self.view.over(self.clock.now()):
            self.background(self._forget(each))

    async def reach(self, seq: int) -> None:
        """Wait until the view has the message of this sequence."""
        if self.view.seq >= seq:
            return
        if self.lost:
            raise self.wire.unavailable("the connection was lost")
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reaching.append((seq, reached))
        for patience in (_SOON, self.address.timeout):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(reached), patience)
                return
            # It may have been removed before it was delivered: then whatever comes next will do.
            await self.wire.publish(self.address.clock)
        self.wire.fail()
        raise self.wire.unavailable("its stream isn't followed any more")

    @asynccontextmanager
    async def watching(self, queue: str) -> AsyncIterator[asyncio.Future[None]]:
        """A future that is done when something may be leased there by an event; time is the caller's to watch."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[queue].add(woken)
        try:
            yield woken
        finally:
            self._waiting[queue].discard(woken)
            if not self._waiting[queue]:
                del self._waiting[queue]
                self._alarms.pop(queue, None)

    def alarm(self, queue: str, at: int | None) -> None:
        """Somebody who watches will look again at this time; an event that makes it earlier wakes them."""
        if at is not None:
            self._alarms[queue] = at
        else:
            self._alarms.pop(queue, None)

    def wake(self, queue: str) -> None:
        """Have all who watch a queue look again."""
        for each in self._waiting.get(queue, ()):
            if not each.done():
                each.set_result(None)

    async def each(self, items: Iterable[A], do: Callable[[A], Awaitable[B]]) -> list[B]:
        """Do it for each, many at once, begun in their order. All are done before an error is raised."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(item: A) -> B:
            async with room:
                return await do(item)

        done = await asyncio.gather(*[one(each) for each in items], return_exceptions=True)
        for result in done:
            if isinstance(result, BaseException):
                raise result
        return done  # type: ignore[return-value] # none is an exception

    async def api(self, what: str, **asked: Any) -> dict[str, Any]:
        """Ask JetStream. Raises BrokerUnavailable also where it refuses."""
        answer = await self.wire.ask(f"$JS.API.{what}", json.dumps(asked).encode() if asked else b"")
        if "error" in answer:
            raise self._refused(answer)
        return answer

    # -- what the server tells ------------------------------------------------------------------------

    async def _was_stored(self, message: Msg) -> None:
        self._heard = time.monotonic()
        headers = message.headers or {}
        if headers.get("Status") == "100":
            flow = message.reply or headers.get("Nats-Consumer-Stalled", "")
            if flow:
                with suppress(Exception):
                    await self.wire.publish(flow)
            return
        if not message.reply:
            return  # the answer to a good-bye
        *_, seq, delivered, stamp, _pending = message.reply.split(".")
        self._delivered += 1
        if int(delivered) != self._delivered:
            self.wire.fail()  # something is missing: begin anew
            return
        self.clock.arrived(int(stamp))
        self._apply(message.subject, int(seq), int(stamp), decoded(headers))
        self._reached(int(seq))

    def _apply(self, subject: str, seq: int, stamp: int, entry: Entry | None) -> None:
        if subject == self.address.clock:
            self._ticked = (seq, stamp)
        elif entry is not None:
            seen = task(subject[len(self.address.tasks) :], seq, stamp, entry)
            self.view.put(seen)
            queue = entry.queue
            if queue in self._waiting and not entry.ended:
                alarm = self._alarms.get(queue)
                if not seen.until or alarm is None or seen.until < alarm:
                    self.wake(queue)

    async def _was_removed(self, message: Msg) -> None:
        seq, id, _asker = message.subject[len(self.address.gone) :].split(".")
        if not message.headers:  # else there was nobody to answer
            self.view.gone(id, int(seq))
        self.wire.arrived(message.subject, message)

    def _reached(self, seq: int) -> None:
        self.view.reached(seq)
        waiting, self._reaching = self._reaching, []
        for wanted, future in waiting:
            if wanted > seq:
                self._reaching.append((wanted, future))
            elif not future.done():
                future.set_result(None)

    async def _watch(self) -> None:
        while time.monotonic() - self._heard < 3 * _HEARTBEAT:  # noqa: ASYNC110 - nothing is what it waits for
            await asyncio.sleep(_HEARTBEAT)
        self.wire.fail()

    async def _forget(self, ended: Task) -> None:
        with suppress(Exception):  # somebody else did, or will
            await self.remove(ended.id, ended.seq)

    def _tell(self) -> None:
        for _, future in self._reaching:
            if not future.done():
                future.set_exception(self.wire.unavailable("the connection was lost"))
        for queue in list(self._waiting):
            self.wake(queue)

    def _refused(self, answer: dict[str, Any]) -> Exception:
        error = answer["error"]
        return self.wire.unavailable(str(error.get("description") or error))


def _json(**asked: Any) -> bytes:
    return json.dumps(asked).encode()


def _code(answer: dict[str, Any]) -> int:
    code: int = answer.get("error", {}).get("err_code", 0)
    return code


def _headers(block: bytes) -> dict[str, str]:
    lines = block.decode("utf-8", "replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _nanoseconds(text: str) -> int:
    """Of a time as in RFC 3339, with up to nine digits after the point, in UTC."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0") or 0)
