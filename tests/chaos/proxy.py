"""A TCP proxy on loopback that does to connections what networks do: it cuts, refuses, swallows, holds and delays.

    with Proxy("127.0.0.1", 6379) as proxy:
        app = App(proxy.through("redis://127.0.0.1:6379/0"))
        proxy.cut()                             # every connection, at once
        with proxy.refusing(): ...              # cut, and nobody listens
        with proxy.black_hole(): ...            # new connections are accepted; nothing arrives, nobody is told
        with proxy.black_hole("replies"): ...   # requests arrive, their replies don't
        with proxy.holding(): ...               # nothing arrives now; all of it arrives at the end of the block
        proxy.silence()                         # what is open now is dead, and nobody is told; new ones pass
        trap = proxy.cut_after("requests", 17)  # the 18th byte never arrives
        proxy.delay = 0.05                      # seconds, each way

It knows nothing of the protocol. One thread owns all sockets and does all the work; what a test calls is done on
that thread, and has been done when the call returns.
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from enum import Enum
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

#: "requests" flow from the client to the server, "replies" the other way.
Direction = Literal["requests", "replies"]
BOTH: tuple[Direction, ...] = ("requests", "replies")

#: At most this much is read at once. Bytes.
_CHUNK = 65536

#: How long the proxy waits for its server to take a connection, and a caller for the proxy. Seconds.
_PATIENCE = 10.0


class _Flow(Enum):
    """What becomes of bytes that go in one direction."""

    PASS = "pass"
    HOLD = "hold"  #: kept until the flow passes again
    DROP = "drop"


class Trap:
    """A cut that waits for its byte."""

    def __init__(self, direction: Direction, left: int) -> None:
        self.direction = direction
        self.left = left  #: bytes that may still pass
        self._sprung = threading.Event()

    @property
    def sprung(self) -> bool:
        """Whether the connection has been cut."""
        return self._sprung.is_set()

    def wait(self, timeout: float) -> bool:
        """Wait for the cut; whether it has come."""
        return self._sprung.wait(timeout)

    def spring(self) -> None:
        """The proxy has cut the connection."""
        self._sprung.set()


class _Pipe:
    """One direction of one connection."""

    def __init__(self, direction: Direction, source: socket.socket, target: socket.socket) -> None:
        self.direction = direction
        self.source = source
        self.target = target
        self.waiting: deque[tuple[float, bytes]] = deque()  # when it's due, and what; b"" is the end
        self.ended = False  # the source has said that nothing more will come
        self.stuck = False  # the target takes no more at this moment


class _Link:
    """A connection from a client, and the one to the server that belongs to it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.requests = _Pipe("requests", client, server)
        self.replies = _Pipe("replies", server, client)
        self.gap = False  # something was dropped, so what follows makes no sense to the receiver
        self.dead = False  # nothing passes any more

    @property
    def pipes(self) -> tuple[_Pipe, _Pipe]:
        return self.requests, self.replies


class Proxy:
    """Stands before the server at `host` and `port`, listening on a port of its own. Use it as a context manager.

    Every method may be called from any thread. Its port stays its own while connections are refused.
    """

    def __init__(self, host: str, port: int) -> None:
        self.target = host, port
        self.delay = 0.0  #: seconds that every byte takes longer, in each direction
        self.accepted = 0  #: connections so far
        # Bound and never listening: it reserves the port, and who connects while there is no listener is refused.
        self._reserve = _bound(("127.0.0.1", 0))
        self.port: int = self._reserve.getsockname()[1]
        self._flow = dict.fromkeys(BOTH, _Flow.PASS)
        self._trap: Trap | None = None
        self._links: list[_Link] = []
        self._listener: socket.socket | None = None
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._main, name=f"proxy-{self.port}", daemon=True)

    # -- the life of a proxy ------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._listen()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cut everything and end. Idempotent."""
        if self._thread.is_alive():
            self._order(self._shut)
            self._thread.join(_PATIENCE)
        self._selector.close()
        for each in (self._reserve, self._woken, self._waker):
            each.close()

    def through(self, url: str) -> str:
        """The same URL with the proxy's address instead of its own."""
        parts = urlsplit(url)
        login, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{login}{at}127.0.0.1:{self.port}"))

    @property
    def open(self) -> int:
        """How many connections clients have open at this moment."""
        return self._order(lambda: sum(not link.requests.ended for link in self._links))

    # -- faults -------------------------------------------------------------------------------------

    def cut(self) -> int:
        """Cut all connections: clients see a reset, the server an end. Returns how many there were."""
        return self._order(lambda: self._cut(list(self._links)))

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Cut all connections and refuse new ones."""

        def begin() -> None:
            self._unlisten()
            self._cut(list(self._links))

        self._order(begin)
        try:
            yield
        finally:
            self._order(self._listen)

    @contextmanager
    def black_hole(self, *directions: Direction) -> Iterator[None]:
        """Swallow what goes in these directions (none named: both), the news that one end has closed included.

        Connections are accepted. Afterwards those on which something was swallowed are cut, without which a peer
        would read on behind a gap.
        """

        def end() -> None:
            self._set_flow(directions or BOTH, _Flow.PASS)
            self._cut([link for link in self._links if link.gap and not link.dead])

        self._order(lambda: self._set_flow(directions or BOTH, _Flow.DROP))
        try:
            yield
        finally:
            self._order(end)

    def silence(self) -> int:
        """Let nothing more pass on the connections that are open, and tell nobody; new ones are as ever.

        So does a firewall that has forgotten a connection. Returns how many there were.
        """

        def begin() -> int:
            for link in self._links:
                link.dead = True
            return len(self._links)

        return self._order(begin)

    @contextmanager
    def holding(self, *directions: Direction) -> Iterator[None]:
        """Hold what goes in these directions (none named: both); afterwards all of it arrives, however late."""
        self._order(lambda: self._set_flow(directions or BOTH, _Flow.HOLD))
        try:
            yield
        finally:
            self._order(lambda: self._set_flow(directions or BOTH, _Flow.PASS))

    def cut_after(self, direction: Direction, count: int) -> Trap:
        """Cut the connection on which the `count`-th byte from now passes, as soon as it has.

        With 0: when the next byte comes, before it passes. Both ends get what has passed, and then an end, not a
        reset. Once; it takes the place of an earlier trap.
        """
        trap = Trap(direction, count)
        self._order(lambda: self._set_trap(trap))
        return trap

    def disarm(self) -> None:
        """Forget the trap, if there is one."""
        self._order(lambda: self._set_trap(None))

    # -- on the thread ------------------------------------------------------------------------------

    def _order(self, call: Callable[[], T]) -> T:
        """Have the proxy's thread do it, and return what it returns."""
        outcome: Future[T] = Future()

        def carry_out() -> None:
            try:
                outcome.set_result(call())
            except BaseException as error:
                outcome.set_exception(error)

        self._orders.put(carry_out)
        self._waker.send(b"!")
        return outcome.result(_PATIENCE)

    def _main(self) -> None:
        while not self._closing:
            for key, mask in self._selector.select(self._until_due()):
                if key.fileobj is self._woken:
                    self._woken.recv(_CHUNK)
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._links:  # else it was closed a moment ago
                    self._serve(key.data, key.fileobj, mask)
            self._carry_out()
            now = time.monotonic()
            for link in list(self._links):
                for pipe in link.pipes:
                    self._flush(link, pipe, now)

    def _carry_out(self) -> None:
        while True:
            try:
                order = self._orders.get_nowait()
            except Empty:
                return
            order()

    def _until_due(self) -> float | None:
        due = [
            pipe.waiting[0][0]
            for link in self._links
            for pipe in link.pipes
            if pipe.waiting and not pipe.stuck and not link.dead and self._flow[pipe.direction] is _Flow.PASS
        ]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:  # it has gone again
            return
        try:
            server = socket.create_connection(self.target, _PATIENCE)
        except OSError:
            _close(client, reset=True)
            return
        self.accepted += 1
        link = _Link(client, server)
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(end, selectors.EVENT_READ, link)
        self._links.append(link)

    def _serve(self, link: _Link, end: object, mask: int) -> None:
        for pipe in link.pipes:
            if pipe.source is end and mask & selectors.EVENT_READ:
                self._read(link, pipe)
            if pipe.target is end and mask & selectors.EVENT_WRITE:
                pipe.stuck = False
                self._watch(link)

    def _read(self, link: _Link, pipe: _Pipe) -> None:
        try:
            data = pipe.source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            pipe.ended = True
            self._watch(link)
        elif link.dead or self._flow[pipe.direction] is _Flow.DROP:
            link.gap = True
            return
        pipe.waiting.append((time.monotonic() + self.delay, data))

    def _flush(self, link: _Link, pipe: _Pipe, now: float) -> None:
        """Pass on what is due. An end of the source ends the connection."""
        while pipe.waiting and not pipe.stuck and self._flow[pipe.direction] is _Flow.PASS:
            due, data = pipe.waiting[0]
            if due > now or link.dead or link not in self._links:
                return
            if not data:
                self._end(link)
                return
            trap = self._trap if self._trap and self._trap.direction == pipe.direction else None
            try:
                sent = pipe.target.send(data[: trap.left] if trap else data) if not trap or trap.left else 0
            except BlockingIOError:
                pipe.stuck = True
                self._watch(link)
                return
            except OSError:
                self._end(link)
                return
            if trap:
                trap.left -= sent
                if trap.left == 0:
                    self._trap = None
                    self._end(link)
                    trap.spring()
                    return
            if sent < len(data):
                pipe.waiting[0] = (due, data[sent:])
            else:
                pipe.waiting.popleft()

    def _watch(self, link: _Link) -> None:
        """Tell the selector what to look for."""
        for source, sink in (link.pipes, link.pipes[::-1]):
            wanted = (0 if source.ended else selectors.EVENT_READ) | (
                selectors.EVENT_WRITE if sink.stuck else 0
            )
            end = source.source
            known = end in self._selector.get_map()
            if wanted and known:
                self._selector.modify(end, wanted, link)
            elif wanted:
                self._selector.register(end, wanted, link)
            elif known:
                self._selector.unregister(end)

    def _end(self, link: _Link, *, reset: bool = False) -> None:
        self._links.remove(link)
        for end in (link.client, link.server):
            if end in self._selector.get_map():
                self._selector.unregister(end)
        # The server gets an end, never a reset: a reset may take back bytes that have arrived.
        _close(link.server)
        _close(link.client, reset=reset)

    def _cut(self, links: list[_Link]) -> int:
        for link in links:
            self._end(link, reset=True)
        return len(links)

    def _set_flow(self, directions: tuple[Direction, ...], flow: _Flow) -> None:
        self._flow.update(dict.fromkeys(directions, flow))

    def _set_trap(self, trap: Trap | None) -> None:
        self._trap = trap

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = _bound(("127.0.0.1", self.port))
            self._listener.listen(256)
            self._listener.setblocking(False)
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _unlisten(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _shut(self) -> None:
        self._closing = True
        self._unlisten()
        self._cut(list(self._links))


def _bound(address: tuple[str, int]) -> socket.socket:
    """A socket bound to an address that it shares with others of this proxy."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(address)
    return bound


def _close(end: socket.socket, *, reset: bool = False) -> None:
    if reset:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
