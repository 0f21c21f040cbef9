"""How values go to the scripts and come back: times, options, leases."""

from __future__ import annotations

import msgspec

from gotasks.broker import Envelope

#: Unique keys may be any text that Python can hold.
_ANY_TEXT = "surrogatepass"


def ms(seconds: float) -> int:
    """Milliseconds; what is above zero stays so."""
    return max(int(min(seconds * 1000, 1e15)), 1) if seconds > 0 else 0  # more isn't an integer to Redis


def text(value: bytes) -> str:
    """The id of a lease or a record, which may be anything where somebody else wrote it."""
    return value.decode("utf-8", "backslashreplace")


def delay_and_options(envelope: Envelope) -> int | bytes:
    """The delay in ms; behind it `:<priority>[:<unique key>]` if one of these isn't the default."""
    delay = ms(envelope.delay) if envelope.delay else 0
    if not envelope.priority and envelope.unique is None:
        return delay
    key = "" if envelope.unique is None else f":{envelope.unique}"
    return f"{delay}:{envelope.priority}{key}".encode("utf-8", _ANY_TEXT)


def with_options(envelope: Envelope, told: bytes) -> tuple[Envelope, bytes]:
    """The envelope with its priority and its unique key, and its deaths. `told` is deaths:priority[:unique key]."""
    deaths, priority, *key = told.split(b":", 2)
    unique = key[0].decode("utf-8", _ANY_TEXT) if key else None
    return msgspec.structs.replace(envelope, priority=int(priority), unique=unique), deaths
