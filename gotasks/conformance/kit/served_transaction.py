"""ServedTransaction: a program's transaction on a served broker, and the server's side of it: a `Session`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec

from gotasks.broker import Broker, Envelope
from gotasks.conformance.kit.transactional import Begun, Mark, Transactional
from gotasks.conformance.kit.wire import REPLIES, Call, error_of, receive, send, shut
from gotasks.errors import BrokerUnavailable

T = TypeVar("T")

#: How long it waits for an answer. Seconds.
_TIMEOUT = 15.0

_METHODS = ("begin", "enqueue_on", "note", "notes", "savepoint", "go_back", "go_on", "commit", "rollback")


class ServedTransaction:
    """A transaction, open on a connection of its own. What ends it without a commit rolls it back."""

    excludes = False

    def __init__(self, address: tuple[str, int], namespace: str) -> None:
        self._namespace = namespace
        self._socket = socket.create_connection(address, _TIMEOUT)
        self._ask("begin", object)

    @property
    def connection(self) -> ServedTransaction:
        return self

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        """For the broker."""
        return self._ask("enqueue_on", dict[str, str], envelopes=list(envelopes))

    def note(self, text: str) -> None:
        self._ask("note", object, data=text.encode())

    def notes(self) -> Sequence[str]:
        return self._ask("notes", list[str])

    def savepoint(self) -> ServedSavepoint:
        return ServedSavepoint(self, self._ask("savepoint", int))

    def commit(self) -> None:
        self._ask("commit", object)

    def rollback(self) -> None:
        self._ask("rollback", object)

    def end(self, method: str, savepoint: int) -> None:
        """Of a savepoint: "go_back" or "go_on"."""
        self._ask(method, object, limit=savepoint)

    def close(self) -> None:
        shut(self._socket)

    def _ask(self, method: str, kind: Callable[..., T], **arguments: Any) -> T:
        call = Call(method=method, namespace=self._namespace, **arguments)
        try:
            send(self._socket, msgspec.msgpack.encode(call))
            reply = REPLIES.decode(receive(self._socket))
        except (OSError, EOFError) as error:
            ids = [each.id for each in call.envelopes]
            raise BrokerUnavailable(f"the served broker didn't answer: {error}", ids=ids) from None
        if reply.error:
            raise error_of(reply)
        return cast(T, msgspec.msgpack.decode(reply.value, type=kind))


class ServedSavepoint:
    """One of a `ServedTransaction`."""

    def __init__(self, transaction: ServedTransaction, number: int) -> None:
        self._transaction, self._number = transaction, number

    def rollback(self) -> None:
        self._transaction.end("go_back", self._number)

    def commit(self) -> None:
        self._transaction.end("go_on", self._number)


class Session:
    """The server's side of a connection: the transaction that is open on it, if one is."""

    def __init__(self) -> None:
        self._begun: Begun | None = None
        self._marks: list[Mark] = []

    @staticmethod
    def knows(call: Call) -> bool:
        """Whether this call is one of a transaction's."""
        return call.method in _METHODS

    def carry_out(self, broker: Broker, call: Call) -> Any:
        """Such a call."""
        assert isinstance(broker, Transactional)
        begun = self._begun = self._begun or Begun(broker)
        if call.method == "enqueue_on":
            return dict(broker.enqueue_on(begun, call.envelopes))
        if call.method == "note":
            begun.note(call.data.decode())
        elif call.method == "notes":
            return list(begun.notes())
        elif call.method == "savepoint":
            self._marks.append(begun.savepoint())
            return len(self._marks) - 1
        elif call.method in ("go_back", "go_on"):
            mark = self._marks[call.limit]
            (mark.rollback if call.method == "go_back" else mark.commit)()
        elif call.method in ("commit", "rollback"):
            broker.end(begun, commit=call.method == "commit")
        return None

    def end(self) -> None:
        """The connection is gone."""
        if self._begun is not None:
            self._begun.broker.gone(self._begun)
