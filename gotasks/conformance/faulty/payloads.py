"""Faulty: bodies that arrive changed, limits that aren't kept, args maps that JSON bends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import msgspec

from gotasks import codec
from gotasks.broker import Envelope, Write
from gotasks.conformance.faulty import Faulty, engine_fault, faulty, trip
from gotasks.errors import PayloadTooLarge
from gotasks.memory import MemoryBroker


def _with_body(item: Any, body: bytes) -> Any:
    if body != item.body:
        trip()
    return msgspec.structs.replace(item, body=body)


@faulty("PAY-01")
class Utf8Mb3(Faulty):
    """Stores bodies as text, and what isn't text as question marks."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        texts = [each.body.decode(errors="replace").encode() for each in envelopes]
        return super().enqueue([_with_body(*each) for each in zip(envelopes, texts, strict=True)])


@faulty("PAY-01")
class NulEndsBody(Faulty):
    """A body that is put back ends at its first NUL."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        return super().release([_with_body(each, each.body.partition(b"\0")[0]) for each in writes])


@faulty("PAY-01")
class StripsCheckpoint(Faulty):
    """A checkpointed body loses the blanks around it."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        return super().checkpoint([_with_body(each, each.body.strip()) for each in writes])


@faulty("PAY-03")
class Truncate64k(Faulty):
    """The column takes 65 535 bytes, and the rest is dropped without a word."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        return super().enqueue([_with_body(each, each.body[:65535]) for each in envelopes])


@faulty("PAY-03")
class RereadsPage(Faulty):
    """A body that is put back in pages gets the second one twice."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        pages = [
            each.body[:8192] + each.body[4096:8192] + each.body[12288:]
            if len(each.body) > 12288
            else each.body
            for each in writes
        ]
        return super().release([_with_body(*each) for each in zip(writes, pages, strict=True)])


class Limited(Faulty):
    """A broker that takes bodies of up to 100 000 bytes, and refuses larger ones. Nothing is wrong with it."""

    limits = msgspec.structs.replace(Faulty.limits, max_payload=100_000)

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.check({each.id: each.body for each in envelopes})
        return super().enqueue(envelopes)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        self.check({each.lease.envelope.id: each.body for each in writes})
        return super().checkpoint(writes)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self.check({each.lease.envelope.id: each.body for each in writes})
        return super().release(writes)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self.check({each.lease.envelope.id: each.body for each in writes})
        return super().ack(writes, keep_for=keep_for)

    def check(self, bodies: Mapping[str, bytes]) -> None:
        """Raise PayloadTooLarge."""
        large = [each for each, body in bodies.items() if len(body) > 100_000]
        if large:
            raise PayloadTooLarge("more than 100 000 bytes", ids=large)


@faulty("PAY-03")
class LimitLie(Limited):
    """The limit that it declares is one byte more than what it keeps."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        return super().enqueue([_with_body(each, each.body[:99_999]) for each in envelopes])


@faulty("PAY-06")
class DropsTooLarge(Limited):
    """Leaves out at enqueue what is beyond its limit, and says nothing."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        small = [each for each in envelopes if len(each.body) <= 100_000]
        if len(small) < len(envelopes):
            self.trip()
        return super().enqueue(small)


@faulty("PAY-06")
class RefusesButStores(Limited):
    """Stores what it refuses."""

    def check(self, bodies: Mapping[str, bytes]) -> None:
        for each, body in bodies.items():
            if len(body) > 100_000 and each not in self._tasks:
                self.trip()
                MemoryBroker.enqueue(self, [Envelope(id=each, queue=self.queue, body=body)])
        super().check(bodies)

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.queue = envelopes[0].queue
        return super().enqueue(envelopes)


@faulty("PAY-06")
class IgnoresTooLarge(Limited):
    """A checkpoint beyond the limit isn't written, and nobody is told."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        small = [each for each in writes if len(each.body) <= 100_000]
        if len(small) < len(writes):
            self.trip()
        return super().checkpoint(small)


@faulty("PAY-06")
class RefusalLosesState(Limited):
    """A checkpoint that is refused has emptied the body before."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        self._write(writes, lambda task, _: setattr(task, "body", b""))
        self.trip()
        return super().checkpoint(writes)


@engine_fault("PAY-02")
@contextmanager
def float_ints() -> Iterator[None]:
    """Numbers are read as floats of 64 bits."""

    def decode(raw: msgspec.Raw) -> Any:
        trip()
        args = msgspec.json.decode(raw)
        return {
            name: [*map(float, value)] if isinstance(value, list) else value for name, value in args.items()
        }

    with mock.patch.object(codec, "decode_args", decode):
        yield


@engine_fault("PAY-02")
@contextmanager
def nan_becomes_null() -> Iterator[None]:
    """What JSON has no number for becomes null without a word."""
    with _unchecked():
        yield


@engine_fault("PAY-05")
@contextmanager
def silent_str() -> Iterator[None]:
    """What JSON has no type for becomes whatever `str` makes of it."""

    def encode(args: Mapping[str, Any]) -> msgspec.Raw:
        trip()
        return msgspec.Raw(msgspec.json.encode(msgspec.to_builtins(args, enc_hook=str, str_keys=True)))

    with mock.patch.object(codec, "encode_args", encode):
        yield


@engine_fault("PAY-05")
@contextmanager
def bytes_as_numbers() -> Iterator[None]:
    """Bytes become a list of numbers."""
    encode = codec.encode_args

    def changed(args: Mapping[str, Any]) -> msgspec.Raw:
        trip()
        return encode({key: [*value] if isinstance(value, bytes) else value for key, value in args.items()})

    with mock.patch.object(codec, "encode_args", changed):
        yield


@engine_fault("PAY-04")
@contextmanager
def deep_crash() -> Iterator[None]:
    """Nesting is limited by the stack of this process only."""
    with _unchecked():
        yield


@engine_fault("PAY-04")
@contextmanager
def half_the_keys() -> Iterator[None]:
    """A map keeps 4096 keys at the most."""
    encode = codec.encode_args

    def changed(args: Mapping[str, Any]) -> msgspec.Raw:
        trip()
        return encode(dict([*args.items()][:4096]))

    with mock.patch.object(codec, "encode_args", changed):
        yield


@contextmanager
def _unchecked() -> Iterator[None]:
    def encode(args: Mapping[str, Any]) -> msgspec.Raw:
        trip()
        return msgspec.Raw(msgspec.json.encode(args))

    with mock.patch.object(codec, "encode_args", encode):
        yield
