"""Elsewhere: a client of the broker under test in a process of its own, which can be frozen and killed.

    other = it.elsewhere()                       # or Elsewhere(it, env={"TZ": "Asia/Tokyo"}), a context manager
    ids = it.put(3, by=other)                    # it is a Broker: every word of a scene takes it as `by`
    lease = it.take_one(by=other)
    other.ack([it.write(lease)], keep_for=0)

    waiting = other.start(Broker.acquire, queue, limit=1, wait=20, lease_for=60)     # doesn't wait: a Future
    total = other.call(drain_all, queue)         # any function of a module that can be imported, called there
    other.freeze()                               # SIGSTOP; what is called now is answered after `thaw`
    other.thaw()
    other.kill()                                 # SIGKILL; what is in progress raises ConnectionError

A function that is called there gets the other process's broker as its first argument. What it takes and gives is
pickled; what it raises is raised here. The process ends with the row, and with this process, however that ends.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import IO, TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from gotasks.broker import Broker, BrokerURL, Envelope, Lease, QueueStats, Record, State, Write
from gotasks.conformance.expect import Nonconformance
from gotasks.discovery import open_broker

if TYPE_CHECKING:
    from typing_extensions import Self

    from gotasks.conformance.scene import Scene

P = ParamSpec("P")
T = TypeVar("T")

#: How long an answer may take, beyond what the call itself says. A busy machine gets the time. Seconds.
PATIENCE = 30.0

_HEAD = struct.Struct(">QI")  # the number of a call, the length of what follows


class Elsewhere(Broker):
    """One more client of the place of `it`, in another process. All methods may be called from any thread.

    `url`: of another place, or by way of a proxy. `env`: variables that the process gets beside those of this one.
    It starts at once; the first call waits until it is there.
    """

    def __init__(self, it: Scene, *, url: str | None = None, env: Mapping[str, str] | None = None) -> None:
        self.capabilities, self.limits = it.capabilities, it.limits
        self._numbers = itertools.count(1)
        self._pending: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._gone = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(env or {}), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._stdin = cast(IO[bytes], self._process.stdin)
        self._stdout = cast(IO[bytes], self._process.stdout)
        cls = it.adapter.broker_class
        spec = "" if cls is None else f"{cls.__module__}:{cls.__qualname__}"
        _send(self._stdin, 0, (sys.path, spec, url or it.url))
        threading.Thread(target=self._listen, name=f"elsewhere-{self.pid}", daemon=True).start()

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        raise NotImplementedError("it needs a scene")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    # -- the process ----------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """Of the other process."""
        return self._process.pid

    def start(
        self, function: Callable[Concatenate[Broker, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Call `function(broker, …)` there, on a thread of its own; don't wait for what it gives."""
        future: Future[T] = Future()
        number = next(self._numbers)
        with self._lock:
            if not self._gone:
                self._pending[number] = future
                with contextlib.suppress(OSError):  # it died at this moment; `_listen` says so
                    _send(self._stdin, number, (function, args, kwargs))
                return future
        future.set_exception(ConnectionError("the other process is gone"))
        return future

    def call(self, function: Callable[Concatenate[Broker, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function(broker, …)` there; what it gives. Raises what it raises."""
        wait = kwargs.get("wait", 0.0)
        within = PATIENCE + (wait if isinstance(wait, (int, float)) else 0.0)
        try:
            return self.start(function, *args, **kwargs).result(within)
        except FutureTimeout:
            name = getattr(function, "__name__", "a call")
            raise Nonconformance(f"in another process, {name} didn't return within {within:g} s") from None

    def freeze(self) -> None:
        """SIGSTOP: it does nothing any more, and its connections stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on where it was."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait until it's gone. Idempotent."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._stdin.close()

    # -- the contract ---------------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        return self.call(Broker.enqueue, envelopes)

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        return self.call(Broker.acquire, queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        return self.call(Broker.extend, leases, lease_for=lease_for)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        return self.call(Broker.checkpoint, writes)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        return self.call(Broker.ack, writes, keep_for=keep_for)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        return self.call(Broker.release, writes)

    def stats(self, queue: str) -> QueueStats:
        return self.call(Broker.stats, queue)

    def purge(self, queue: str) -> int:
        return self.call(Broker.purge, queue)

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        return self.call(Broker.browse, queue, state=state, limit=limit, after=after)

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        return self.call(Broker.get, ids)

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        return self.call(Broker.cancel, ids, keep_for=keep_for)

    def interrupt(self, queue: str) -> None:
        self.call(Broker.interrupt, queue)

    def close(self) -> None:
        """Close its broker; the process stays."""
        if not self._gone:
            self.call(Broker.close)

    def warnings(self) -> Sequence[str]:
        return self.call(Broker.warnings)

    # -- how it is done -------------------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            while True:
                number, answer = _receive(self._stdout)
                good, value = pickle.loads(answer)  # noqa: S301 - from our own process
                future = self._pending.pop(number)
                if good:
                    future.set_result(value)
                else:
                    future.set_exception(value)
        except (OSError, EOFError):
            pass
        finally:
            with self._lock:
                self._gone = True
            for future in self._pending.values():
                future.set_exception(ConnectionError("the other process is gone"))
            self._pending.clear()
            self._stdout.close()


def _send(file: IO[bytes], number: int, message: object) -> None:
    data = pickle.dumps(message)
    file.write(_HEAD.pack(number, len(data)) + data)
    file.flush()


def _receive(file: IO[bytes]) -> tuple[int, bytes]:
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise EOFError
    number, length = _HEAD.unpack(head)
    data = file.read(length)
    if len(data) < length:
        raise EOFError
    return number, data


# -- in the other process -----------------------------------------------------------------------------


class _There:
    """What answers."""

    def __init__(self, broker: Broker, answers: IO[bytes]) -> None:
        self._broker, self._answers = broker, answers
        self._lock = threading.Lock()

    def carry_out(self, number: int, request: bytes) -> None:
        """One call, and its answer."""
        answer: tuple[bool, object]
        try:
            function, args, kwargs = pickle.loads(request)  # noqa: S301 - from our own parent
            name = getattr(function, "__name__", "")
            if getattr(Broker, name, None) is function:
                function = getattr(type(self._broker), name)  # what it is on this broker
            answer = True, _plain(function(self._broker, *args, **kwargs))
            pickle.dumps(answer)
        except BaseException as error:
            answer = False, _sendable(error)
        with self._lock, contextlib.suppress(OSError):  # nobody asks any more
            _send(self._answers, number, answer)


def _plain(value: object) -> object:
    """Whatever kind of mapping or sequence a backend gives, as one that can be pickled."""
    if isinstance(value, Mapping):
        return dict(value)
    return (
        list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes, tuple)) else value
    )


def _sendable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def main() -> None:
    """Answer until stdin ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a driver prints is no answer
    sys.path, spec, url = pickle.loads(_receive(requests)[1])  # noqa: S301 - from our own parent
    if spec:
        module, _, name = spec.partition(":")
        broker = cast(type[Broker], getattr(importlib.import_module(module), name)).from_url(BrokerURL(url))
    else:
        broker = open_broker(url)
    there = _There(broker, answers)
    with contextlib.suppress(EOFError):
        while True:
            threading.Thread(target=there.carry_out, args=_receive(requests), daemon=True).start()
    os._exit(0)


if __name__ == "__main__":
    # Not this module's own `main`: its classes are others than those that anybody imports.
    importlib.import_module("gotasks.conformance.kit.elsewhere").main()
