"""Args maps: what may be in one, and what comes back."""

from __future__ import annotations

import dataclasses
import enum
import math
import re
import subprocess
import sys
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, TypedDict

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotasks import from_args_map, to_args_map
from gotasks.args import MAX_DEPTH
from gotasks.codec import decode_args, encode_args
from gotasks.errors import InvalidArgs

# -- what JSON holds ----------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=20)
maps = st.dictionaries(text, values)


def same(one: object, other: object) -> bool:
    """Equal, and of the same types all the way down: 1 isn't 1.0, and neither is True."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return one == other


@given(maps)
def test_every_args_map_comes_back_as_it_was(args: dict[str, Any]) -> None:
    """In the Go library every number became a float64."""
    assert same(decode_args(encode_args(args)), args)
    assert same(to_args_map(args), args)


@given(maps)
def test_a_decode_is_fresh_each_time(args: dict[str, Any]) -> None:
    raw = encode_args(args)
    first, second = decode_args(raw), decode_args(raw)
    first["changed"] = True
    assert same(second, args)


@pytest.mark.parametrize("number", [2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**100, -(10**100)])
def test_large_whole_numbers_stay_what_they_are(number: int) -> None:
    assert decode_args(encode_args({"n": number}))["n"] == number


@pytest.mark.parametrize("encode", [encode_args, to_args_map])
@pytest.mark.parametrize(
    "bad",
    [
        {"n": float("nan")},
        {"n": float("inf")},
        {"deep": [{"n": float("-inf")}]},
        {"tuple": (1, float("nan"))},
        {1: "key"},
        {"deep": {1: "key"}},
        {"deep": [{None: "key"}]},
        {("a", "b"): "key"},
        {"n": object()},
        {"n": print},
        {"text": "\ud800"},
        {"deep": [{"\udfff": 1}]},
        {"n": 1 + 2j},
    ],
    ids=lambda bad: re.sub(" at 0x[0-9a-f]+", "", str(bad)),  # the same in every process
)
def test_what_json_cant_hold_is_refused(encode: Any, bad: Any) -> None:
    with pytest.raises(InvalidArgs):
        encode(bad)


@pytest.mark.parametrize("bad", [None, 1, "text", [1], [("a", 1)], b"bytes", {1, 2}])
def test_an_args_map_is_a_map_at_the_top(bad: object) -> None:
    with pytest.raises(InvalidArgs):
        to_args_map(bad)


def nested(depth: int) -> dict[str, Any]:
    args: dict[str, Any] = {}
    for _ in range(depth):
        args = {"a": args}
    return args


@pytest.mark.parametrize("kind", ["dict", "list", "tuple"])
def test_nesting_has_a_limit_that_every_worker_can_read(kind: str) -> None:
    def make(depth: int) -> dict[str, Any]:
        value: Any = 1
        for _ in range(depth):
            value = {"dict": {"a": value}, "list": [value], "tuple": (value,)}[kind]
        return {"a": value}

    decode_args(encode_args(make(MAX_DEPTH - 1)))
    for depth in (MAX_DEPTH + 2, 5_000, 200_000):
        with pytest.raises(InvalidArgs):
            encode_args(make(depth) if depth < 10_000 else make(10_000))


def test_a_map_that_holds_itself_is_refused() -> None:
    args: dict[str, Any] = {}
    args["self"] = args
    for encode in (encode_args, to_args_map):
        with pytest.raises(InvalidArgs):
            encode(args)


def test_the_message_names_the_place() -> None:
    with pytest.raises(InvalidArgs, match=r"args\['order'\]\['lines'\]\[1\]\['price'\] is nan"):
        encode_args({"order": {"lines": [{}, {"price": float("nan")}]}})
    with pytest.raises(InvalidArgs, match=r"args\['order'\] has the key 7"):
        encode_args({"order": {7: 1}})


# -- typed objects ------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Data:
    n: int
    at: datetime
    day: date
    clock: time
    span: timedelta
    key: uuid.UUID
    price: Decimal
    blob: bytes
    colour: Colour
    pair: tuple[int, str]
    names: set[str]
    inner: Data | None = None


def data() -> Data:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=timezone.utc)
    return Data(
        n=2**60,
        at=moment,
        day=moment.date(),
        clock=time(1, 2, 3),
        span=timedelta(days=1, seconds=2),
        key=uuid.UUID(int=7),
        price=Decimal("1.10"),
        blob=b"\x00\xff",
        colour=Colour.RED,
        pair=(1, "a"),
        names={"a"},
    )


def test_types_that_json_doesnt_know_become_text_and_come_back_by_the_class() -> None:
    plain = to_args_map(dataclasses.replace(data(), inner=data()))
    assert plain["at"] == "2026-01-02T03:04:05.678900Z"
    assert (plain["price"], plain["colour"], plain["pair"], plain["names"]) == (
        "1.10",
        "red",
        [1, "a"],
        ["a"],
    )
    assert plain["span"] == "P1DT2S"
    again = decode_args(encode_args(plain))
    assert from_args_map(again, Data) == dataclasses.replace(data(), inner=data())


@dataclasses.dataclass
class DataOrder:
    order: int
    note: str = "none"


class StructOrder(msgspec.Struct):
    order: int
    note: str = "none"


@attrs.define
class AttrsOrder:
    order: int
    note: str = "none"


class ModelOrder(pydantic.BaseModel):
    order: int
    note: str = "none"


CLASSES: list[type[Any]] = [DataOrder, StructOrder, AttrsOrder, ModelOrder]


@pytest.mark.parametrize("cls", CLASSES)
@given(st.integers(-(2**62), 2**62), text)
def test_objects_of_every_kind_make_the_round_trip(cls: type[Any], order: int, note: str) -> None:
    value = cls(order=order, note=note)
    assert from_args_map(decode_args(encode_args(to_args_map(value))), cls) == value


@pytest.mark.parametrize("cls", CLASSES)
def test_a_map_that_doesnt_fit_is_refused_by_field(cls: type[Any]) -> None:
    assert from_args_map({"order": 42}, cls) == cls(order=42)
    for bad in ({}, {"order": "many"}, {"order": None}, {"order": [1]}):
        with pytest.raises(InvalidArgs, match="order") as caught:
            from_args_map(bad, cls)
        assert cls.__name__ in str(caught.value)


class DictOrder(TypedDict):
    order: int


def test_a_typed_dict_is_checked_too() -> None:
    assert from_args_map({"order": 42}, DictOrder) == {"order": 42}
    with pytest.raises(InvalidArgs, match="order"):
        from_args_map({"order": "many"}, DictOrder)


class Outer(pydantic.BaseModel):
    inner: ModelOrder
    at: datetime


def test_models_inside_models_and_inside_maps() -> None:
    outer = Outer(inner=ModelOrder(order=1), at=datetime(2026, 1, 1, tzinfo=timezone.utc))
    plain = to_args_map(outer)
    assert plain == {"inner": {"order": 1, "note": "none"}, "at": "2026-01-01T00:00:00Z"}
    assert decode_args(encode_args({"outer": outer, "list": [ModelOrder(order=2)]})) == {
        "outer": plain,
        "list": [{"order": 2, "note": "none"}],
    }


_SLOTS = """
import dataclasses, sys, threading
from gotasks import from_args_map
sys.setswitchinterval(1e-6)
for _ in range(60):
    empty = dataclasses.field(default_factory=list)
    inner = dataclasses.make_dataclass("Inner", [("a", int, 0), ("b", "list[str]", empty)])
    fields = [("one", inner), ("many", list[inner]), ("named", dict[str, inner])]
    args_class = dataclasses.make_dataclass("Args", fields)
    start = threading.Barrier(8)
    def convert():
        start.wait()
        from_args_map({"one": {}, "many": [{}], "named": {"x": {}}}, args_class)
    threads = [threading.Thread(target=convert) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


def test_slots_that_meet_a_class_for_the_first_time_together() -> None:
    """Learning a class is nothing that msgspec does safely on two threads: it ended the worker by SIGSEGV."""
    assert subprocess.run([sys.executable, "-c", _SLOTS], check=False).returncode == 0


_CONVERTED: list[object] = []


@dataclasses.dataclass
class Inner:
    number: int


@dataclasses.dataclass
class MakesAnother:
    inner: dict[str, int]

    def __post_init__(self) -> None:
        _CONVERTED.append(from_args_map(self.inner, Inner))


@pytest.mark.timeout(10)
def test_a_class_that_converts_another_when_it_is_made() -> None:
    from_args_map({"inner": {"number": 1}}, MakesAnother)

    assert [Inner(1)] == _CONVERTED
