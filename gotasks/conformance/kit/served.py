"""Served: a broker that lives in one process, made one that others share: a server on loopback, and its client.

For the suite's own proof: behind it a faulty broker of a few lines has a network, other processes, and a server that
can be killed. With a journal the server writes all that it holds into one file before it answers, so what it confirmed
outlives its SIGKILL.

    python -m gotasks.conformance.kit.served gotasks.memory:MemoryBroker --port 0 --journal FILE
"""

from __future__ import annotations

import argparse
import importlib
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from gotasks.broker import (
    Broker,
    BrokerURL,
    Capability,
    Envelope,
    Lease,
    Limits,
    QueueStats,
    Record,
    State,
    Write,
)
from gotasks.conformance.kit import lifeline
from gotasks.conformance.kit.open_memory import OpenMemory
from gotasks.conformance.kit.served_transaction import ServedTransaction, Session
from gotasks.conformance.kit.wire import CALLS, REPLIES, Call, Reply, error_of, receive, send, shut
from gotasks.errors import BrokerClosed, BrokerUnavailable, ConfigurationError, InvalidURL

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Call", "OpenMemory", "ServedBroker", "describe", "load"]

#: How long a client waits for the answer to a call, and the server for one `acquire`. Seconds.
TIMEOUT, SLICE = 5.0, 0.2

T = TypeVar("T")

#: Parameters of the URL that are the served broker's own.
_PASSED = ("without", "handoff")


def load(spec: str) -> type[Broker]:
    """The class that `module:name` names."""
    module, _, name = spec.partition(":")
    return cast(type[Broker], getattr(importlib.import_module(module), name))


def describe(cls: type) -> str:
    """`module:name`, for `load`."""
    return f"{cls.__module__}:{cls.__qualname__}"


class ServedBroker(Broker):
    """`served://127.0.0.1:PORT?of=module:Class`: a client. One connection a call in progress, kept for the next."""

    def __init__(self, url: BrokerURL) -> None:
        ((host, port),) = url.hosts
        self._address = host, port or 0
        self._namespace = url.text("namespace", "")
        inner = _inner(url.text("of", describe(OpenMemory)), url.params)
        self.capabilities = inner.capabilities | Capability.SHARED
        durability = "kill" if url.boolean("durable", default=False) else "none"
        self.limits: Limits = msgspec.structs.replace(inner.limits, durability=durability)
        self._timeout = url.seconds("timeout", TIMEOUT)
        self._closed = False
        self._interrupts = 0
        self.after_fork()

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        url.only({"of", "namespace", "durable", "client", "timeout", *_PASSED})
        if len(url.hosts) != 1:
            raise InvalidURL("served:// takes one host and port")
        return cls(url)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[socket.socket] = []
        self._busy: set[socket.socket] = set()
        self._pid = os.getpid()

    # -- the contract -----------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self._check_open()
        if not envelopes:
            return {}
        return self._ask(Call(method="enqueue", envelopes=list(envelopes)), dict[str, str])

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        end, interrupts = time.monotonic() + wait, self._interrupts
        named = None if ids is None else list(ids)
        while True:
            before = time.monotonic()
            part = min(SLICE, max(0.0, end - before))
            call = Call(
                method="acquire", queue=queue, limit=limit, seconds=part, lease_for=lease_for, ids=named
            )
            found = [self._mine(lease, before + lease_for) for lease in self._ask(call, list[Lease])]
            if found or named is not None or time.monotonic() >= end or self._interrupts != interrupts:
                return found

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        call = Call(method="extend", leases=[self._theirs(each) for each in leases], lease_for=lease_for)
        return self._lost(call, leases)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        return self._write(Call(method="checkpoint"), writes)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        return self._write(Call(method="ack", seconds=keep_for), writes)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        return self._write(Call(method="release"), writes)

    def stats(self, queue: str) -> QueueStats:
        return self._ask(Call(method="stats", queue=queue), QueueStats)

    def purge(self, queue: str) -> int:
        return self._ask(Call(method="purge", queue=queue), int)

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        if Capability.BROWSE not in self.capabilities:
            return super().browse(queue, state=state, limit=limit, after=after)
        call = Call(method="browse", queue=queue, state=state, limit=limit, after=after)
        return self._ask(call, list[Record])

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        if Capability.RECORDS not in self.capabilities:
            return super().get(ids)
        return self._ask(Call(method="get", ids=list(ids)), dict[str, Record])

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        if Capability.CANCEL not in self.capabilities:
            return super().cancel(ids, keep_for=keep_for)
        return self._ask(Call(method="cancel", ids=list(ids), seconds=keep_for), list[str])

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if Capability.TRANSACTIONAL not in self.capabilities:
            return super().enqueue_on(connection, envelopes)
        self._check_open()
        if not isinstance(connection, ServedTransaction):
            raise ConfigurationError(f"a {type(connection).__name__} is no transaction on a served broker")
        return connection.enqueue(envelopes)

    def interrupt(self, queue: str) -> None:
        self._interrupts += 1  # noticed when this slice of the wait is over

    def warnings(self) -> Sequence[str]:
        return self._ask(Call(method="warnings"), list[str])

    def close(self) -> None:
        self._closed = True
        with self._lock:
            for connection in [*self._idle, *self._busy]:
                shut(connection)
            self._idle.clear()

    # -- what the adapter asks for ----------------------------------------------------------------

    def backdoor(self, method: str, *, queue: str = "", ids: Sequence[str] = (), data: bytes = b"") -> Any:
        """A call that isn't in the contract; see `_Service`."""
        return self._ask(Call(method=method, queue=queue, ids=list(ids), data=data), object)

    # -- how it is done ---------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerClosed("this client is closed")

    def _mine(self, lease: Lease, deadline: float) -> Lease:
        """The lease as this process holds it: a fork's child must not use it."""
        return msgspec.structs.replace(lease, receipt=f"{self._pid}.{lease.receipt}", deadline=deadline)

    def _theirs(self, lease: Lease) -> Lease:
        pid, _, receipt = lease.receipt.partition(".")
        return msgspec.structs.replace(lease, receipt=receipt if pid == str(self._pid) else "")

    def _lost(self, call: Call, leases: Sequence[Lease]) -> frozenset[str]:
        self._check_open()
        if not leases:
            return frozenset()
        lost = self._ask(call, frozenset[str])
        return frozenset(each.receipt for each in leases if self._theirs(each).receipt in lost)

    def _write(self, call: Call, writes: Sequence[Write]) -> frozenset[str]:
        call.writes = [msgspec.structs.replace(each, lease=self._theirs(each.lease)) for each in writes]
        return self._lost(call, [each.lease for each in writes])

    def _ask(self, call: Call, kind: Callable[..., T]) -> T:
        """Ask the server; `kind` is the type of the answer."""
        self._check_open()
        call.namespace = self._namespace
        connection = self._take()
        try:
            send(connection, msgspec.msgpack.encode(call))
            data = self._receive(connection)
        except (OSError, EOFError) as error:
            self._drop(connection)
            self._check_open()
            ids = [each.id for each in call.envelopes]
            raise BrokerUnavailable(f"the served broker didn't answer: {error}", ids=ids) from None
        except BaseException:
            self._drop(connection)
            raise
        self._give_back(connection)
        reply = REPLIES.decode(data)
        if reply.error:
            raise error_of(reply)
        return cast(T, msgspec.msgpack.decode(reply.value, type=kind))

    def _receive(self, connection: socket.socket) -> bytes:
        return receive(connection)

    def _take(self) -> socket.socket:
        with self._lock:
            if self._idle:
                connection = self._idle.pop()
                self._busy.add(connection)
                return connection
        try:
            connection = socket.create_connection(self._address, self._timeout)
        except OSError as error:
            raise BrokerUnavailable(f"no served broker at {self._address}: {error}") from None
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._busy.add(connection)
        return connection

    def _give_back(self, connection: socket.socket) -> None:
        with self._lock:
            self._busy.discard(connection)
            if not self._closed:
                self._idle.append(connection)
                return
        shut(connection)

    def _drop(self, connection: socket.socket) -> None:
        with self._lock:
            self._busy.discard(connection)
            # Whatever broke this one broke those that lie idle, most likely.
            idle, self._idle = self._idle, []
        for each in [connection, *idle]:
            shut(each)


class _Service:
    """The server's side: one broker a namespace, and all that it holds in the journal before it answers."""

    def __init__(self, spec: str, params: Mapping[str, str], journal: Path | None) -> None:
        self._spec, self._params, self._journal = spec, params, journal
        self._brokers: dict[str, OpenMemory] = {}
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._full = self._weak = False
        if journal is not None and journal.exists():
            for name, tasks in pickle.loads(journal.read_bytes()).items():  # noqa: S301 - it wrote this itself
                self._broker(name).restore(tasks)

    def _broker(self, namespace: str) -> OpenMemory:
        with self._lock:
            if namespace not in self._brokers:
                broker = _inner(self._spec, self._params)
                assert isinstance(broker, OpenMemory)
                broker.full = self._full
                self._brokers[namespace] = broker
            return self._brokers[namespace]

    def answer(self, call: Call, session: Session) -> Reply:
        try:
            broker = self._broker(call.namespace)
            value = session.carry_out(broker, call) if session.knows(call) else self._carry_out(broker, call)
            if call.method not in ("stats", "browse", "get", "dump", "warnings"):
                self.save(self._broker(call.namespace).lag)
        except Exception as error:
            ids = list(getattr(error, "ids", ()))
            return Reply(error=type(error).__name__, message=str(error), ids=ids)
        return Reply(value=msgspec.Raw(msgspec.msgpack.encode(value)))

    def save(self, lag: float = 0.0) -> None:
        """Write the journal, if there is one: wholly, or not at all; after `lag` seconds."""
        if self._journal is None or self._weak:
            return
        if lag:
            threading.Timer(lag, self.save).start()
            return
        with self._lock:
            content = pickle.dumps({name: broker.holdings() for name, broker in self._brokers.items()})
            fresh = self._journal.with_suffix(".new")
            fresh.write_bytes(content)
            fresh.replace(self._journal)

    def _carry_out(self, broker: OpenMemory, call: Call) -> Any:
        method = call.method
        if method == "enqueue":
            return dict((broker.enqueue_when_full if broker.full else broker.enqueue)(call.envelopes))
        if method == "acquire":
            return broker.acquire(
                call.queue, limit=call.limit, wait=call.seconds, lease_for=call.lease_for, ids=call.ids
            )
        if method == "extend":
            return broker.extend(call.leases, lease_for=call.lease_for)
        if method == "ack":
            return broker.ack(call.writes, keep_for=call.seconds)
        if method in ("checkpoint", "release"):
            return getattr(broker, method)(call.writes)
        if method in ("stats", "purge"):
            return getattr(broker, method)(call.queue)
        if method == "browse":
            return list(broker.browse(call.queue, state=call.state, limit=call.limit, after=call.after))
        if method == "get":
            return dict(broker.get(call.ids or []))
        if method == "cancel":
            return list(broker.cancel(call.ids or [], keep_for=call.seconds))
        return self._backdoor(broker, call)

    def _backdoor(self, broker: OpenMemory, call: Call) -> Any:
        if call.method == "dump":
            return broker.dump()
        if call.method == "evict":
            broker.evict(*(call.ids or []))
        elif call.method == "put_raw":
            broker.put_raw(call.queue, call.data)
        elif call.method == "drop":
            with self._lock:
                self._brokers.pop(call.namespace, None)
        elif call.method == "disturb":
            for each in list(self._brokers.values()):
                each.disturbed()
        elif call.method in ("fill", "make_room"):
            self._full = call.method == "fill"
            for each in list(self._brokers.values()):
                each.full = self._full
        elif call.method in ("weaken", "strengthen"):
            self._weak = call.method == "weaken"
        elif call.method == "warnings":
            return ["the server writes no journal: a restart loses every task"] if self._weak else []
        else:
            raise ValueError(f"there is no {call.method}")
        return None

    def serve(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections.add(connection)
        session = Session()
        try:
            while True:
                call = CALLS.decode(receive(connection))
                reply = self.answer(call, session)
                if call.method == "disturb":
                    for each in self._connections - {connection}:
                        shut(each)
                send(connection, msgspec.msgpack.encode(reply))
        except (OSError, EOFError):
            pass
        finally:
            self._connections.discard(connection)
            session.end()
            shut(connection)


def _inner(spec: str, params: Mapping[str, str]) -> Broker:
    """The broker that is served: it has no network, so a client may make one to ask what it can do."""
    query = "&".join(f"{name}={params[name]}" for name in _PASSED if name in params)
    return load(spec).from_url(BrokerURL(f"memory://{'?' if query else ''}{query}"))


def main() -> None:
    """Serve until stdin ends; the port is printed first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("of")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--journal", type=Path)
    for name in _PASSED:
        parser.add_argument(f"--{name}")
    options = parser.parse_args()
    params = {name: value for name in _PASSED if (value := getattr(options, name)) is not None}
    service = _Service(options.of, params, options.journal)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", options.port))
        listener.listen(128)
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        lifeline.hold()
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=service.serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    # Not this module's own `main`: its classes are others than those that anybody imports.
    importlib.import_module("gotasks.conformance.kit.served").main()
