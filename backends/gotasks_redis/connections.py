"""Connections: from a URL to redis-py connections, and from its errors to ours."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import redis

from gotasks.broker import BrokerURL
from gotasks.errors import BrokerClosed, BrokerError, BrokerUnavailable
from gotasks_redis.keys import Keys
from gotasks_redis.link import (
    Address,
    Elsewhere,
    Link,
    NotMaster,
    NotReplicated,
    ask,
    ask_replicated,
    bare,
    has_ended,
    new_link,
)
from gotasks_redis.options import client_options
from gotasks_redis.route import route
from gotasks_redis.scripts import PROBE, Script

#: A connection that was idle for less than this isn't looked at before it is used. Seconds.
_SURELY_OPEN = 1.0

#: A server that was told to wait for replicas replies so much later at the most. Seconds.
_REPLICATED = 0.2

#: So often a call follows its tasks to another node of a cluster.
_MOST_MOVES = 3


class Idle(NamedTuple):
    """A connection that waits to be used, and since when (monotonic)."""

    connection: Link
    since: float


class Waiter(NamedTuple):
    """A connection that is used for blocking waits only, and the server's name for it."""

    connection: Link
    client_id: int


class Connections:
    """The connections to the server that has the tasks: each call takes an idle one, or makes one. Thread-safe.

    redis-py's connections are used directly, not its client: the client's pool, retries and events cost a worker
    a fifth of its rate, and none of them is wanted here.
    """

    def __init__(self, url: BrokerURL, keys: Keys) -> None:
        """`keys` are those of the tasks. Raises InvalidURL."""
        self._route = route(url, keys)
        self._keys = len(self._route.guards) + 1
        self._replicas = url.integer("replicas", 0)
        self._probe = ("EVAL", PROBE, 1, keys.probe)
        self._short = False  #: of replicas, when last seen
        self.timeout: float = client_options(url)["socket_timeout"]
        self._shown = str(url)
        self._closed = False
        self._idle: deque[Idle] = deque()
        self._waiters: deque[Waiter] = deque()
        self._blocked: dict[Waiter, str] = {}  #: the list that each one waits for
        self._lock = threading.Lock()

    def run(self, script: Script, key: str, args: Sequence[Any], *, within: float | None = None) -> Any:
        """Run a script; return its reply, which may be waited for `within` seconds where the timeout is longer.

        Raises BrokerUnavailable, BrokerClosed, redis.ResponseError.
        """
        guards, replicas = self._route.guards, self._replicas if script.writes else 0
        try:
            return self._call(
                "EVALSHA", script.sha, self._keys, key, *guards, *args, within=within, replicas=replicas
            )
        except redis.exceptions.NoScriptError:
            # A server that was restarted or flushed has forgotten it; nothing was run, so send it whole.
            return self._call(
                "EVAL", script.text, self._keys, key, *guards, *args, within=within, replicas=replicas
            )

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
                self._blocked[waiter] = key
            try:
                token = None if unless() else ask(waiter.connection, "BLPOP", key, seconds)
            except (Elsewhere, NotMaster, redis.exceptions.ResponseError) as error:
                # UNBLOCKED: the master became a replica. MOVED: the slot is elsewhere.
                waiter.connection.disconnect()
                raise redis.exceptions.ConnectionError(f"a wait was ended: {error}") from None
            finally:
                with self._lock:
                    self._blocked.pop(waiter, None)
            self._waiters.append(waiter)
            if self._closed:
                self._close_idle()
            return token is not None

    def interrupt(self, key: str) -> None:
        """End the waits of this object for `key`. Never raises; one that begins just now may be missed."""
        with self._lock:
            blocked = [each.client_id for each, waits_for in self._blocked.items() if waits_for == key]
        for client_id in (each for each in blocked if each > 0):
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

    def _call(self, *command: Any, within: float | None = None, replicas: int = 0) -> Any:
        with self._errors():
            try:
                return self._ask(command, within, replicas)
            except Elsewhere as error:
                return self._follow(error, command, within, replicas)

    def _follow(self, error: Elsewhere, command: Sequence[Any], within: float | None, replicas: int) -> Any:
        """Ask again where the keys are now. Raises as `_ask`; `error` where nobody says where that is."""
        for _ in range(_MOST_MOVES):
            if error.address is None or not self._moved(error.address):
                break
            try:
                return self._ask(command, within, replicas)
            except Elsewhere as another:
                error = another
        raise error

    def _ask(self, command: Sequence[Any], within: float | None, replicas: int) -> Any:
        connection = self._take()
        try:
            if replicas:
                return self._ask_replicated(connection, command, within, replicas)
            return ask(connection, *command, within=within)
        finally:
            self._give_back(connection)

    def _ask_replicated(
        self, connection: Link, command: Sequence[Any], within: float | None, replicas: int
    ) -> Any:
        # The server has to give up before its reply is given up.
        hold = min(within or self.timeout, self.timeout / 2)
        replicated = partial(
            ask_replicated,
            connection,
            probe=self._probe,
            replicas=replicas,
            hold=hold,
            within=None if within is None else hold + _REPLICATED,
        )
        try:
            if self._short:
                # Else each `acquire` would lease tasks that nobody gets to know of, for as long as replicas are away.
                replicated(self._probe)
                self._short = False
            return replicated(command)
        except NotReplicated:
            self._short = True
            raise

    def _new_waiter(self) -> Waiter:
        connection = new_link(self._route.options())
        try:
            client_id = ask(connection, "CLIENT", "ID")
        except redis.exceptions.ResponseError:  # not allowed: its waits can't be ended early, that is all
            client_id = -id(connection)
        return Waiter(connection, client_id)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except redis.exceptions.AuthenticationError as error:
            raise BrokerUnavailable(f"{self._shown} refuses the user or password of the URL") from bare(error)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
            self._moved(None)
            raise BrokerUnavailable(f"{self._shown}: {error}") from bare(error)
        except Elsewhere as error:
            if not self._moved(None):
                raise BrokerUnavailable(
                    f"{self._shown} is a node of a cluster: write redis+cluster:// ({error})"
                ) from bare(error)
            raise BrokerUnavailable(
                f"{self._shown}: the slot of this namespace is being moved, or no node serves it ({error})"
            ) from bare(error)

    def _moved(self, address: Address | None) -> bool:
        """`Route.moved`; and forget what leads to the server that had the tasks."""
        self._close_idle()
        with self._lock:
            self._blocked.clear()  # at another server these ids are others'
        return self._route.moved(address)

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerClosed(f"the broker {self._shown} is closed")

    def _take(self) -> Link:
        self._check_open()
        while True:
            try:
                connection, since = self._idle.pop()
            except IndexError:
                return new_link(self._route.options())
            # One that was idle for a while may have been closed by the server: that can be seen, and costs a call.
            if time.monotonic() - since < _SURELY_OPEN or not has_ended(connection):
                return connection
            connection.disconnect()

    def _give_back(self, connection: Link) -> None:
        self._idle.append(Idle(connection, time.monotonic()))
        if self._closed:
            self._close_idle()

    def _close_idle(self) -> None:
        pools: tuple[deque[Idle] | deque[Waiter], ...] = (self._idle, self._waiters)
        for pool in pools:
            while pool:
                with suppress(IndexError):  # another thread took the last one
                    pool.pop().connection.disconnect()
