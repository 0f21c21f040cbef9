"""Rows: payloads. A body is bytes of which the broker knows nothing; an args map arrives as it was, or not at all."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from gotasks import App
from gotasks.broker import Broker, Capability, Lease
from gotasks.conformance.adapter import NotApplicable
from gotasks.conformance.expect import Nonconformance, expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import LONG, Scene
from gotasks.errors import InvalidArgs, PayloadTooLarge

#: What text handling, line handling, a protocol or a script would change.
STRANGE = [
    b"",
    b"\x00",
    b"a\x00b\x00",
    b"\r\n",
    b" surrounded by blanks \n",
    bytes(range(256)),
    b"\xff\xfe\x00\xd8",
    b"\xed\xa0\x80",  # a lone surrogate, as some encoders write it
    "👩\u200d👩\u200d👧 \u202ertl e\u0301".encode(),
    b"$5\r\nhello\r\n*1\r\n",
    b"'; DROP TABLE tasks; --",
    b"%s {} $1 ? :name \\N \\x41",
    b'{"json": [1.0, NaN]}',
    b"nil",
    b"0012",
]

#: Around the sizes of a page, of 16 bits, and of what goes in one packet.
SIZES = [0, 1, 4095, 4096, 4097, 65535, 65536, 1024 * 1024]


@row("PAY-01")
def a_body_is_bytes_and_stays_as_it_is(it: Scene) -> None:
    """Given bodies of any bytes (none at all, NUL, what is no valid UTF-8, what looks like a command), when
    they are enqueued, checkpointed or released, then the next holder gets the very same bytes.
    """
    bodies = _stored(it, STRANGE)

    def check(leases: Sequence[Lease], what: str) -> None:
        for lease in leases:
            expect_equal(lease.envelope.body, bodies[lease.envelope.id], f"a body after {what}")

    holder = it.client()
    leases = _take_all(it, len(bodies), by=it.broker, lease_for=LONG)
    check(leases, "enqueue")
    bodies = _turned(bodies)
    for lease in leases:
        it.broker.release([it.write(lease, bodies[lease.envelope.id])])
    leases = _take_all(it, len(bodies), by=holder, lease_for=it.lease)
    check(leases, "release")
    bodies = _turned(bodies)
    for lease in leases:
        holder.checkpoint([it.write(lease, bodies[lease.envelope.id])])
    if not it.claims(Capability.HANDOFF):
        it.abandon(leases, by=holder)
    check(_take_all(it, len(bodies), by=it.broker, lease_for=LONG), "checkpoint")


@row("PAY-03")
def a_body_of_any_size_within_the_limit_arrives_whole(it: Scene) -> None:
    """Given bodies of the sizes around which buffers and columns end, up to `limits.max_payload`, when they are
    enqueued and then written by a release, then the next holder gets every byte of them.
    """
    most = it.limits.max_payload
    sizes = [size for size in SIZES if most is None or size <= most]
    if most is not None and (most <= 16 * SIZES[-1] or not it.quick):
        sizes.append(most)
    for size in sizes:
        before, after = _filled(size, b"before"), _filled(size, b"after")
        it.broker.enqueue([it.envelope(before)])
        lease = it.take_one()
        expect(lease.envelope.body == before, _arrived("enqueued", size, lease))
        it.broker.release([it.write(lease, after)])
        lease = it.take_one()
        expect(lease.envelope.body == after, _arrived("released", size, lease))
        it.broker.ack([it.write(lease)], keep_for=0)


@row("PAY-06")
def a_body_beyond_the_limit_is_refused_and_the_old_one_stays(it: Scene) -> None:
    """Given a broker with `limits.max_payload`, when a body of one byte more is enqueued or written under a
    lease, PayloadTooLarge names its task, nothing is stored or changed, and the lease holds.
    """
    most = it.limits.max_payload
    if most is None:
        raise NotApplicable("limits.max_payload is None")
    large = b"x" * (most + 1)
    sent = it.envelope(large)
    refused = _too_large(lambda: it.broker.enqueue([sent]))
    expect_equal(
        refused, {sent.id}, "ids of the PayloadTooLarge that enqueue raises for max_payload + 1 bytes"
    )
    expect_equal(len(it.take()), 0, "tasks that come out after an enqueue of max_payload + 1 bytes")

    (task_id,) = it.put(body=b"old")
    holder = it.client()
    lease = it.take_one(by=holder, lease_for=it.lease)
    for name, write in {
        "checkpoint": lambda: holder.checkpoint([it.write(lease, large, seq=1)]),
        "release": lambda: holder.release([it.write(lease, large, seq=2)]),
        "ack": lambda: holder.ack([it.write(lease, large, seq=3)], keep_for=0),
    }.items():
        refused = _too_large(write)
        expect_equal(refused, {task_id}, f"ids of the PayloadTooLarge that {name} raises")
    it.abandon([lease], by=holder)
    after = it.take_one(by=it.client(), wait=it.grace)
    seen = after.envelope.body, after.deaths
    expect_equal(
        seen, (b"old", 1), "body and deaths after writes that were refused, and the end of the lease"
    )


# -- args maps ------------------------------------------------------------------------------------------


@row("PAY-02", engine=True)
def a_number_arrives_exactly_or_is_refused(it: Scene) -> None:
    """Given numbers that other languages and other encoders round (beyond 53 or 64 bits, the smallest and the
    largest float, minus zero), when they are enqueued in an args map, the handler gets the same number of the
    same type. Infinity and NaN, which JSON doesn't have, are refused by InvalidArgs, and nothing is stored.
    """
    numbers = [
        2**53 + 1,
        -(2**63),
        2**64 - 1,
        2**64,
        10**40,
        -0.0,
        0.1,
        5e-324,
        1.7976931348623157e308,
        1.0,
        True,
    ]
    arrived = _through(it, {"numbers": numbers})["numbers"]
    expect_equal([*map(_exactly, arrived)], [*map(_exactly, numbers)], "numbers as the handler gets them")
    for number in (math.inf, -math.inf, math.nan):
        expect(
            _refused(it, {"n": [number]}), f"{number} in an args map is accepted; it has to be InvalidArgs"
        )


@row("PAY-04", engine=True)
def a_deep_or_wide_args_map_arrives_or_is_refused(it: Scene) -> None:
    """Given args maps nested deeper than a parser's stack, or with many keys, when they are enqueued, the
    handler gets them as they were, or InvalidArgs is raised and nothing is stored. No RecursionError reaches
    anybody.
    """
    room = min(it.limits.max_payload or 1024 * 1024, 1024 * 1024)
    wide = {f"key {number}": number for number in range(room // 100)}
    expect(_through(it, wide) == wide, f"a map of {len(wide)} keys doesn't reach the handler as it was")
    for depth in (100, 1_000, 100_000):
        outcome = _deep(it, depth)
        expect(outcome == "", f"an args map nested {depth} deep: {outcome}")


@row("PAY-05", engine=True)
def what_json_has_no_type_for_follows_the_documented_mapping(it: Scene) -> None:
    """Given values that JSON has no type for, when they are enqueued in an args map, each arrives as is
    documented: tuples and sets as lists, bytes as base64, times as RFC 3339 or ISO 8601 text. Keys that aren't
    strings, and objects of other kinds, are refused by InvalidArgs: never turned into text without a word.
    """
    at = datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    given: dict[str, Any] = {
        "tuple": (1, (2,)),
        "set": {7},
        "bytes": b"\xff\x00",
        "time": at,
        "span": timedelta(seconds=90),
        "text": "a\x00b 👩\u200d👧",
    }
    documented = {
        "tuple": [1, [2]],
        "set": [7],
        "bytes": "/wA=",
        "time": "2024-01-02T03:04:05Z",
        "span": "PT90S",
        "text": given["text"],
    }
    expect_equal(_through(it, given), documented, "an args map as the handler gets it")
    for value in ({1: 2}, {None: 1}, {b"k": 1}, object(), complex(1, 2), "\ud800"):
        expect(_refused(it, {"v": value}), f"{value!r} in an args map is accepted; it has to be InvalidArgs")


# -- how it is done -------------------------------------------------------------------------------------


def _stored(it: Scene, bodies: Sequence[bytes]) -> dict[str, bytes]:
    """Enqueue these; their bodies by id."""
    envelopes = [it.envelope(body) for body in bodies]
    for start in range(0, len(envelopes), it.limits.max_batch):
        it.broker.enqueue(envelopes[start : start + it.limits.max_batch])
    return {each.id: each.body for each in envelopes}


def _turned(bodies: dict[str, bytes]) -> dict[str, bytes]:
    """Each id gets the next one's body."""
    values = [*bodies.values()]
    return dict(zip(bodies, [*values[1:], values[0]], strict=True))


def _take_all(it: Scene, count: int, *, by: Broker, lease_for: float) -> list[Lease]:
    """Acquire that many, however many a call gives."""
    held: dict[str, Lease] = {}
    while len(held) < count:
        leases = it.take(count - len(held), by=by, wait=it.lease + it.grace, lease_for=lease_for)
        if not leases:
            raise Nonconformance(f"{count} tasks were enqueued or put back, and {len(held)} can be acquired")
        held.update((lease.envelope.id, lease) for lease in leases)  # one may be over, on a busy machine
    return [*held.values()]


def _filled(size: int, word: bytes) -> bytes:
    """That many bytes, of which no two parts are alike."""
    numbers = b"".join(word + struct.pack(">I", number) for number in range(size // (len(word) + 4) + 1))
    return numbers[:size]


def _arrived(how: str, size: int, lease: Lease) -> str:
    return f"of a body of {size} bytes that was {how}, other ones arrived: {len(lease.envelope.body)} bytes"


def _too_large(call: Callable[[], object]) -> frozenset[str] | None:
    """The ids that a PayloadTooLarge names; None if there was none."""
    try:
        call()
    except PayloadTooLarge as error:
        return error.ids
    return None


def _through(it: Scene, args: dict[str, Any]) -> dict[str, Any]:
    """What a handler gets of these args."""
    got: list[dict[str, Any]] = []

    def keep(args: dict[str, Any]) -> None:
        got.append(args)

    app = App(it.broker, fatal_queue=it.fatal)
    app.register("keep", keep)
    app.queue(it.queue).enqueue("keep", args)
    app.drain(it.queue)
    if len(got) != 1:
        raise Nonconformance(f"one task was enqueued, and {len(got)} were run")
    return got[0]


def _refused(it: Scene, args: dict[str, Any]) -> bool:
    """Whether InvalidArgs is raised, and nothing stored."""
    try:
        _through(it, args)
    except InvalidArgs:
        return not it.take()
    return False


def _deep(it: Scene, depth: int) -> str:
    """What is wrong with an args map nested so deep; nothing if it arrives or is refused."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    try:
        arrived = _through(it, {"v": value})["v"]
    except InvalidArgs:
        return ""
    except RecursionError:
        return "RecursionError"
    levels = 0
    while arrived:
        (arrived,) = arrived
        levels += 1
    return "" if levels == depth else f"it arrived {levels} deep"


def _exactly(number: object) -> tuple[str, str]:
    return type(number).__name__, repr(number)
