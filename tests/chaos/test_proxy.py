"""The proxy does to connections what it says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from gotasks.conformance.kit.process import until
from gotasks.conformance.kit.proxy import Proxy


class Echo:
    """A server that sends back what it gets, in capitals."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, 0), family=family)
        self.port: int = self.listener.getsockname()[1]
        self.received = b""  #: on all connections
        self.reads: list[int] = []  #: how many bytes came at a time
        self.ends = 0  #: connections whose end it has seen
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    self.received += data
                    self.reads.append(len(data))
                    connection.sendall(data.upper())
            except OSError:
                pass
        self.ends += 1


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    # On some systems closing alone doesn't wake the thread.
    echo.listener.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", echo.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with _client(proxy) as client:
        yield client


def _client(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def _asks(client: socket.socket, text: bytes = b"ping") -> bytes:
    client.sendall(text)
    return _reads(client, len(text))


def _reads(client: socket.socket, size: int) -> bytes:
    """Up to so many bytes, until the end."""
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


def _silent(client: socket.socket) -> bool:
    client.settimeout(0.2)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(5)
    return False


def test_it_passes_what_comes(client: socket.socket, proxy: Proxy) -> None:
    large = b"x" * 5_000_000
    sender = threading.Thread(target=client.sendall, args=[large])
    sender.start()
    assert _reads(client, len(large)) == large.upper()
    sender.join()
    assert (proxy.open, proxy.accepted) == (1, 1)
    client.close()
    until(lambda: proxy.open == 0, "the end of the connection")


def test_a_cut_is_a_reset(client: socket.socket, proxy: Proxy, echo: Echo) -> None:
    assert _asks(client) == b"PING"
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    until(lambda: echo.ends == 1, "the end on the server")
    with _client(proxy) as another:
        assert _asks(another) == b"PING"


def test_refusing(client: socket.socket, proxy: Proxy) -> None:
    assert _asks(client) == b"PING"
    with proxy.refusing():
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        with pytest.raises(ConnectionRefusedError):
            _client(proxy)
    with _client(proxy) as another:
        assert _asks(another) == b"PING"


def test_a_black_hole(client: socket.socket, proxy: Proxy, echo: Echo) -> None:
    assert _asks(client) == b"PING"
    with proxy.black_hole():
        client.sendall(b"lost")
        assert _silent(client)
        with _client(proxy) as another:  # accepted all the same
            another.sendall(b"lost as well")
            assert _silent(another)
        assert echo.ends == 0
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    until(lambda: echo.ends == 2, "the end of both on the server")
    assert echo.received == b"ping"


def test_a_black_hole_for_replies(client: socket.socket, proxy: Proxy, echo: Echo) -> None:
    with proxy.black_hole("replies"):
        client.sendall(b"asked")
        until(lambda: echo.received == b"asked", "the request")
        assert _silent(client)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_silence(client: socket.socket, proxy: Proxy, echo: Echo) -> None:
    assert _asks(client) == b"PING"
    assert proxy.silence() == 1
    client.sendall(b"lost")
    assert _silent(client)
    with _client(proxy) as another:
        assert _asks(another) == b"PING"
    client.close()
    until(lambda: proxy.open == 0, "the end of both connections")
    until(lambda: echo.ends == 1, "the end of the other one on the server")
    assert echo.received == b"pingping"


def test_holding(client: socket.socket, proxy: Proxy, echo: Echo) -> None:
    with proxy.holding("requests"):
        client.sendall(b"late")
        assert _silent(client)
        client.shutdown(socket.SHUT_WR)
        assert echo.received == b""
    until(lambda: echo.received == b"late", "the late request")
    until(lambda: echo.ends == 1, "the end, after it")


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_a_cut_after_so_many_bytes_of_a_request(
    client: socket.socket, proxy: Proxy, echo: Echo, count: int
) -> None:
    trap = proxy.cut_after("requests", count)
    client.sendall(b"ping")
    assert trap.wait(5)
    until(lambda: echo.ends == 1, "the end on the server")
    assert echo.received == b"ping"[:count]
    with _client(proxy) as another:  # once only
        assert _asks(another) == b"PING"


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_a_cut_after_so_many_bytes_of_a_reply(client: socket.socket, proxy: Proxy, count: int) -> None:
    trap = proxy.cut_after("replies", count)
    assert _asks(client) == b"PING"[:count]
    assert trap.wait(5)
    assert client.recv(1) == b""


def test_a_cut_that_is_a_reset(client: socket.socket, proxy: Proxy, echo: Echo) -> None:
    trap = proxy.cut_after("replies", 2, reset=True)
    client.sendall(b"ping")
    assert trap.wait(5)
    with pytest.raises(ConnectionResetError):
        _reads(client, 4)
    until(lambda: echo.ends == 1, "the end on the server")


def test_a_cut_is_settled_when_the_server_has_closed_its_end() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Proxy(*listener.getsockname()) as proxy,
        _client(proxy) as client,
    ):
        server, _ = listener.accept()
        trap = proxy.cut_after("requests", 4)
        client.sendall(b"ping")
        assert trap.wait(5)
        assert _reads(client, 1) == b""
        assert _reads(server, 5) == b"ping"
        server.sendall(b"nobody hears that")
        assert not trap.settled(0.1)
        server.close()
        assert trap.settled(5)


def test_a_trap_that_is_disarmed(client: socket.socket, proxy: Proxy) -> None:
    trap = proxy.cut_after("replies", 2)
    proxy.disarm()
    assert _asks(client) == b"PING"
    assert not trap.sprung


def test_a_delay(client: socket.socket, proxy: Proxy) -> None:
    proxy.delay = 0.1
    began = time.monotonic()
    assert _asks(client) == b"PING"
    assert 0.2 <= time.monotonic() - began < 2


def test_slices(client: socket.socket, proxy: Proxy, echo: Echo) -> None:
    proxy.slices = 1
    assert _asks(client, b"x" * 2000) == b"X" * 2000
    assert len(echo.reads) > 100  # some come together where the reader is slow


def test_slices_of_a_long_message_end_in_time(client: socket.socket, proxy: Proxy) -> None:
    proxy.slices = 1
    began = time.monotonic()
    assert _asks(client, b"x" * 50_000) == b"X" * 50_000  # with a pause between each two, 5 to 10 s
    assert time.monotonic() - began < 5


def test_what_has_passed_is_counted(client: socket.socket, proxy: Proxy, echo: Echo) -> None:
    assert _asks(client) == b"PING"
    assert proxy.passed == {"requests": 4, "replies": 4}
    with proxy.black_hole("replies"):
        client.sendall(b"lost")
        until(lambda: echo.received == b"pinglost", "the request")
        assert proxy.passed == {"requests": 8, "replies": 4}


@pytest.mark.parametrize("host, name", [("127.0.0.1", "localhost"), ("::1", "::1")])
def test_a_server_that_is_known_by_name_or_by_ipv6(host: str, name: str) -> None:
    try:
        echo = Echo(host)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with Proxy(name, echo.port) as proxy, _client(proxy) as client:
        assert _asks(client) == b"PING"
    echo.listener.close()


def test_a_server_that_is_away(proxy: Proxy, echo: Echo) -> None:
    echo.listener.shutdown(socket.SHUT_RDWR)
    echo.listener.close()
    with pytest.raises(ConnectionResetError), _client(proxy) as client:
        client.recv(1)


def test_the_url_keeps_all_but_its_address(proxy: Proxy) -> None:
    assert proxy.through("redis://u:p@example.org:6379/3?a=b") == f"redis://u:p@127.0.0.1:{proxy.port}/3?a=b"
    assert proxy.through("redis://[::1]:6379/3") == f"redis://127.0.0.1:{proxy.port}/3"
    assert proxy.through("redis://example.org") == f"redis://127.0.0.1:{proxy.port}"
