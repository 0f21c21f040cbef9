"""A server that speaks Redis's protocol and says what a test wants: what no real sentinel or node says on demand."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

#: What can be said: bytes as a string, a list of these, and an error as an exception.
Said = bytes | int | None | Exception | Sequence["Said"]

#: With what redis-py begins a connection.
_GREETINGS = {b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n", b"CLIENT": b"+OK\r\n", b"SELECT": b"+OK\r\n"}


@contextmanager
def answering(says: Callable[[list[bytes]], Said]) -> Iterator[int]:
    """Answer each command by what `says` makes of its words, on threads of its own. Gives the port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while head := self.rfile.readline():
                words = [self._word() for _ in range(int(head[1:]))]
                self.wfile.write(_GREETINGS.get(words[0]) or _encoded(says(words)))

        def _word(self) -> bytes:
            length = int(self.rfile.readline()[1:])
            return self.rfile.read(length + 2)[:-2]

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _encoded(said: Said) -> bytes:
    if said is None:
        return b"*-1\r\n"
    if isinstance(said, Exception):
        return f"-{said}\r\n".encode()
    if isinstance(said, int):
        return b":%d\r\n" % said
    if isinstance(said, bytes):
        return b"$%d\r\n%b\r\n" % (len(said), said)
    return b"*%d\r\n" % len(said) + b"".join(map(_encoded, said))
