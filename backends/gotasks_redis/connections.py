"""Connections: from a URL to redis-py connections, and from its errors to ours."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Protocol, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gotasks.broker import BrokerURL
from gotasks.errors import BrokerClosed, BrokerError, BrokerUnavailable, InvalidURL
from gotasks_redis.scripts import Script

#: Seconds until a call that isn't answered is given up. Always longer than a blocking wait.
DEFAULT_TIMEOUT = 5.0

#: A connection that was idle for less than this isn't looked at before it is used. Seconds.
_SURELY_OPEN = 1.0

_COMMON = frozenset({"namespace", "timeout", "connect_timeout"})
_TLS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})


class Wire(Protocol):
    """What is used of a redis-py connection; the same from version 5 on."""

    def send_command(self, *args: Any) -> None: ...
    def read_response(self) -> Any: ...
    def can_read(self, timeout: float = 0) -> bool: ...
    def disconnect(self) -> None: ...


class Idle(NamedTuple):
    """A connection that waits to be used, and since when (monotonic)."""

    connection: Wire
    since: float


class Waiter(NamedTuple):
    """A connection that is used for blocking waits only, and the server's name for it."""

    connection: Wire
    client_id: int


class Connections:
    """The connections to one server: each call takes an idle one, or makes one. Thread-safe.

    redis-py's connections are used directly, not its client: the client's pool, retries and events cost a worker
    a fifth of its rate, and none of them is wanted here.
    """

    def __init__(self, url: BrokerURL) -> None:
        options = _options(url)
        self.timeout: float = options["socket_timeout"]
        self._factory = redis.Redis(**options).connection_pool
        self._shown = str(url)
        self._closed = False
        self._idle: deque[Idle] = deque()
        self._waiters: deque[Waiter] = deque()
        self._blocked: dict[int, str] = {}  #: client id → the list that it waits for
        self._lock = threading.Lock()

    def run(self, script: Script, key: str, args: Sequence[Any], *, within: float | None = None) -> Any:
        """Run a script; return its reply, which may be waited for `within` seconds where the timeout is longer.

        Raises BrokerUnavailable, BrokerClosed, redis.ResponseError.
        """
        try:
            return self._call("EVALSHA", script.sha, 1, key, *args, within=within)
        except redis.exceptions.NoScriptError:
            # A server that was restarted or flushed has forgotten it; nothing was run, so send it whole.
            return self._call("EVAL", script.text, 1, key, *args, within=within)

    def wait(self, key: str, seconds: float, *, unless: Callable[[], bool]) -> bool:
        """Wait for a token in the list `key`; whether one was taken. Raises as `run`.

        `interrupt` ends the wait early; `unless` says whether that has happened before it began.
        """
        with self._errors():
            self._check_open()
            try:
                waiter = self._waiters.pop()
            except IndexError:
                waiter = self._new_waiter()
            with self._lock:
                self._blocked[waiter.client_id] = key
            try:
                token = None if unless() else _ask(waiter.connection, "BLPOP", key, seconds)
            finally:
                with self._lock:
                    del self._blocked[waiter.client_id]
            self._waiters.append(waiter)
            if self._closed:
                self._close_idle()
            return token is not None

    def interrupt(self, key: str) -> None:
        """End the waits of this object for `key`. Never raises; one that begins just now may be missed."""
        with self._lock:
            blocked = [each for each, waits_for in self._blocked.items() if waits_for == key and each > 0]
        for client_id in blocked:
            with suppress(BrokerError, redis.exceptions.RedisError):
                self._call("CLIENT", "UNBLOCK", client_id)

    def config(self, name: str) -> str | None:
        """A setting of the server; None where it doesn't tell. Raises as `run`."""
        try:
            reply = self._call("CONFIG", "GET", name)
        except redis.exceptions.ResponseError:
            return None  # many hosted servers refuse CONFIG
        values = list(reply.values()) if isinstance(reply, dict) else reply[1::2]  # RESP3 and RESP2
        return values[0].decode() if values else None

    def close(self) -> None:
        """Close all connections, those in use when they are given back. Idempotent; later calls raise BrokerClosed."""
        self._closed = True
        self._close_idle()

    def after_fork(self) -> None:
        """In the child: the sockets are the parent's. Close this process's copies, and say nothing on them."""
        self._lock = threading.Lock()
        self._blocked = {}
        self._close_idle()

    def _call(self, *command: Any, within: float | None = None) -> Any:
        with self._errors():
            connection = self._take()
            try:
                return _ask(connection, *command, within=within)
            finally:
                self._give_back(connection)

    def _new_waiter(self) -> Waiter:
        connection = cast("Wire", self._factory.make_connection())
        try:
            client_id = _ask(connection, "CLIENT", "ID")
        except redis.exceptions.ResponseError:  # not allowed: its waits can't be ended early, that is all
            client_id = -id(connection)
        return Waiter(connection, client_id)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except redis.exceptions.AuthenticationError as error:
            raise BrokerUnavailable(f"{self._shown} refuses the user or password of the URL") from _bare(
                error
            )
        except (
            redis.exceptions.ConnectionError,
            redis.exceptions.TimeoutError,
            redis.exceptions.ReadOnlyError,
            OSError,
        ) as error:
            self._close_idle()  # they lead to the same server
            raise BrokerUnavailable(f"{self._shown}: {error}") from _bare(error)

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerClosed(f"the broker {self._shown} is closed")

    def _take(self) -> Wire:
        self._check_open()
        while True:
            try:
                connection, since = self._idle.pop()
            except IndexError:
                return cast("Wire", self._factory.make_connection())
            # One that was idle for a while may have been closed by the server: that can be seen, and costs a call.
            if time.monotonic() - since < _SURELY_OPEN or not _has_ended(connection):
                return connection
            connection.disconnect()

    def _give_back(self, connection: Wire) -> None:
        self._idle.append(Idle(connection, time.monotonic()))
        if self._closed:
            self._close_idle()

    def _close_idle(self) -> None:
        pools: tuple[deque[Idle] | deque[Waiter], ...] = (self._idle, self._waiters)
        for pool in pools:
            while pool:
                with suppress(IndexError):  # another thread took the last one
                    pool.pop().connection.disconnect()


def _ask(connection: Wire, *command: Any, within: float | None = None) -> Any:
    """Send one command and read its reply. A connection whose reply didn't come whole is closed."""
    try:
        connection.send_command(*command)
        if within is not None and not connection.can_read(timeout=within):
            raise redis.exceptions.TimeoutError(f"no reply within {within:.3g} s")
        return connection.read_response()
    except redis.exceptions.ResponseError:
        raise  # that was a whole reply
    except BaseException:
        connection.disconnect()  # whatever may still arrive on it is no answer to the next command
        raise


def _has_ended(connection: Wire) -> bool:
    """Whether an idle connection has something to read: only its end can come unasked."""
    try:
        return bool(connection.can_read(timeout=0))
    except (redis.exceptions.RedisError, OSError):
        return True


def _bare(error: BaseException) -> BaseException:
    """The error without what it came from: a chain of tracebacks shows arguments, and these may be secrets."""
    error.__cause__ = error.__context__ = None
    return error


def _options(url: BrokerURL) -> dict[str, Any]:
    options: dict[str, Any] = {
        "username": url.user,
        "password": url.password,
        "socket_timeout": url.seconds("timeout", DEFAULT_TIMEOUT),
        "socket_connect_timeout": url.seconds("connect_timeout", DEFAULT_TIMEOUT),
        "socket_keepalive": True,
        # Never a blind repeat: whether a call may be sent again is for the core to decide.
        "retry": Retry(NoBackoff(), 0),
        # The pool only makes connections here, and never learns of their end: from redis-py 6 on its default is 100.
        "max_connections": 2**31 - 1,
        "decode_responses": False,
    }
    if options["socket_timeout"] < 2:
        raise InvalidURL("timeout= is at least 2 seconds: a worker's wait for a task takes up to 1")
    if url.scheme == "unix":
        url.only(_COMMON | {"db"})
        if not url.path or url.hosts:
            raise InvalidURL("a unix:// URL names the socket: unix:///run/redis/redis.sock?db=0")
        return options | {"unix_socket_path": url.path, "db": url.integer("db", 0)}
    url.only(_COMMON | (_TLS if url.scheme == "rediss" else frozenset()))
    if len(url.hosts) > 1:
        raise InvalidURL(f"{url.scheme}:// takes one host")
    host, port = url.hosts[0] if url.hosts else ("127.0.0.1", None)
    database = url.path.strip("/")
    if database and not database.isdecimal():
        raise InvalidURL(
            f"a {url.scheme}:// URL ends with the number of the database, as in {url.scheme}://host:6379/0"
        )
    options |= {"host": host, "port": port or 6379, "db": int(database or 0)}
    if url.scheme == "rediss":
        options["ssl"] = True
        options |= {name: url.params[name] for name in _TLS & url.params.keys()}
        options["ssl_check_hostname"] = url.boolean("ssl_check_hostname", default=True)
    return options
