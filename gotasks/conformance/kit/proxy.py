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
        proxy.slices = 1                        # bytes at a time
        proxy.passed["replies"]                 # bytes that the server has sent and the client got

It knows nothing of the protocol. One thread owns all sockets and does all the work; what a test calls is done on
that thread, and has been done when the call returns.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit, urlunsplit

from gotasks.conformance.kit.traffic import BOTH, Direction, Flow, Link, Pipe, Trap, close

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BOTH", "Direction", "Proxy", "Trap"]

T = TypeVar("T")

#: At most this much is read at once. Bytes.
_CHUNK = 65536

#: How long the proxy waits for its server to take a connection, and a caller for the proxy. Seconds.
_PATIENCE = 10.0

#: So that the reader sees one slice before the next one is there, mostly. Seconds.
_BETWEEN_SLICES = 2e-5

#: For so long after what was read at once is due, the proxy pauses between its slices. A pause lasts many times as long
#: on a busy machine, and a long statement would outlast its client's patience. Seconds.
_SLICING = 0.5


class Proxy:
    """Stands before the server at `host` and `port`, listening on a port of its own. Use it as a context manager.

    `host` is a name or an address, IPv6 too; the proxy itself is always at 127.0.0.1.
    Every method may be called from any thread. Its port stays its own while connections are refused.
    """

    def __init__(self, host: str, port: int) -> None:
        self.target = host, port
        self.delay = 0.0  #: seconds that every byte takes longer, in each direction
        #: bytes that it passes on at a time, each with a send of its own; None: as they come
        self.slices: int | None = None
        self.accepted = 0  #: connections so far
        # Bound and never listening: it reserves the port, and who connects while there is no listener is refused.
        self._reserve = _bound(("127.0.0.1", 0))
        self.port: int = self._reserve.getsockname()[1]
        self._flow = dict.fromkeys(BOTH, Flow.PASS)
        self._trap: Trap | None = None
        self._links: list[Link] = []
        self._passed: dict[Direction, int] = dict.fromkeys(BOTH, 0)
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

    @property
    def passed(self) -> Mapping[Direction, int]:
        """How many bytes have gone through in each direction so far."""
        return self._order(lambda: dict(self._passed))

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
            self._set_flow(directions or BOTH, Flow.PASS)
            self._cut([link for link in self._links if link.gap and not link.dead])

        self._order(lambda: self._set_flow(directions or BOTH, Flow.DROP))
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
        self._order(lambda: self._set_flow(directions or BOTH, Flow.HOLD))
        try:
            yield
        finally:
            self._order(lambda: self._set_flow(directions or BOTH, Flow.PASS))

    def cut_after(self, direction: Direction, count: int, *, reset: bool = False) -> Trap:
        """Cut the connection on which the `count`-th byte from now passes, as soon as it has.

        With 0: when the next byte comes, before it passes. Both ends get what has passed, and then an end; with
        `reset` the client gets a reset. Once; it takes the place of an earlier trap.
        """
        trap = Trap(direction, count, reset=reset)
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
                elif isinstance(key.data, Trap):
                    self._see_out(key.data, key.fileobj)
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
            if pipe.waiting and not pipe.stuck and not link.dead and self._flow[pipe.direction] is Flow.PASS
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
            close(client, reset=True)
            return
        self.accepted += 1
        link = Link(client, server)
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(end, selectors.EVENT_READ, link)
        self._links.append(link)

    def _serve(self, link: Link, end: object, mask: int) -> None:
        for pipe in link.pipes:
            if pipe.source is end and mask & selectors.EVENT_READ:
                self._read(link, pipe)
            if pipe.target is end and mask & selectors.EVENT_WRITE:
                pipe.stuck = False
                self._watch(link)

    def _read(self, link: Link, pipe: Pipe) -> None:
        try:
            data = pipe.source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            pipe.ended = True
            self._watch(link)
        elif link.dead or self._flow[pipe.direction] is Flow.DROP:
            link.gap = True
            return
        pipe.waiting.append((time.monotonic() + self.delay, memoryview(data)))

    def _flush(self, link: Link, pipe: Pipe, now: float) -> None:
        """Pass on what is due. An end of the source ends the connection."""
        while pipe.waiting and not pipe.stuck and self._flow[pipe.direction] is Flow.PASS:
            due, data = pipe.waiting[0]
            if due > now or link.dead or link not in self._links:
                return
            if not data:
                self._end(link)
                return
            trap = self._trap if self._trap and self._trap.direction == pipe.direction else None
            most = min(trap.left if trap else len(data), self.slices or len(data))
            try:
                sent = pipe.target.send(data[:most]) if most else 0
            except BlockingIOError:
                pipe.stuck = True
                self._watch(link)
                return
            except OSError:
                self._end(link)
                return
            self._passed[pipe.direction] += sent
            if self.slices and time.monotonic() < due + _SLICING:
                time.sleep(_BETWEEN_SLICES)
            if trap:
                trap.left -= sent
                if trap.left == 0:
                    self._spring(link, trap)
                    return
            if sent < len(data):
                pipe.waiting[0] = (due, data[sent:])
            else:
                pipe.waiting.popleft()

    def _watch(self, link: Link) -> None:
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

    def _end(self, link: Link, *, reset: bool = False) -> None:
        self._forget(link)
        # The server gets an end, never a reset: a reset may take back bytes that have arrived.
        close(link.server)
        close(link.client, reset=reset)

    def _forget(self, link: Link) -> None:
        self._links.remove(link)
        for end in (link.client, link.server):
            if end in self._selector.get_map():
                self._selector.unregister(end)

    def _spring(self, link: Link, trap: Trap) -> None:
        self._trap = None
        self._forget(link)
        close(link.client, reset=trap.reset)
        try:
            link.server.shutdown(socket.SHUT_WR)
        except OSError:  # it has ended by itself
            close(link.server)
            trap.settle()
        else:
            self._selector.register(link.server, selectors.EVENT_READ, trap)
        trap.spring()

    def _see_out(self, trap: Trap, server: object) -> None:
        """Swallow what the server still says on a connection that was cut, until it closes its end."""
        assert isinstance(server, socket.socket)
        try:
            over = not server.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            over = True
        if over:
            self._selector.unregister(server)
            close(server)
            trap.settle()

    def _cut(self, links: list[Link]) -> int:
        for link in links:
            self._end(link, reset=True)
        return len(links)

    def _set_flow(self, directions: tuple[Direction, ...], flow: Flow) -> None:
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
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, Trap):
                assert isinstance(key.fileobj, socket.socket)
                close(key.fileobj)


def _bound(address: tuple[str, int]) -> socket.socket:
    """A socket bound to an address that it shares with others of this proxy."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(address)
    return bound
