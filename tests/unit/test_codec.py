"""Task records on the wire."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotasks import codec
from gotasks.task import Failure, Outcome, Task

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
raw_maps = st.dictionaries(text, st.integers() | text | st.lists(st.booleans()), max_size=4).map(
    codec.encode_args
)
failures = st.builds(
    Failure,
    outcome=st.sampled_from(Outcome),
    error=text,
    at=text,
    step=text,
    traceback=text,
    in_doubt=st.booleans(),
)
tasks = st.builds(
    Task,
    task_id=text,
    created_at=text,
    updated_at=text,
    queue_name=text,
    job_name=text,
    args_map=raw_maps,
    current_handler_index=st.integers(0, 1000),
    original_args_map=raw_maps,
    result_log=st.none() | failures | text,
    v=st.integers(0, codec.VERSION),
    steps=st.none() | st.lists(text, max_size=4).map(tuple),
    tries=st.integers(0, 100),
    moving=st.none() | text,
    not_before=st.none() | text,
    raw=st.none() | text,
)


def task(**changes: Any) -> Task:
    fields: dict[str, Any] = {
        "task_id": "id",
        "created_at": codec.now(),
        "updated_at": codec.now(),
        "queue_name": "orders",
        "job_name": "checkout",
        "args_map": msgspec.Raw(b'{"order":42}'),
        "current_handler_index": 1,
        "original_args_map": msgspec.Raw(b'{"order":42}'),
        "v": codec.VERSION,
        "steps": ("charge", "receipt"),
    }
    return Task(**fields | changes)


def as_told(value: Task) -> dict[str, Any]:
    """All fields, the maps as bytes."""
    fields = msgspec.structs.asdict(value)
    return {key: bytes(each) if isinstance(each, msgspec.Raw) else each for key, each in fields.items()}


@given(tasks)
def test_every_record_comes_back_as_it_was(value: Task) -> None:
    assert as_told(codec.decode(codec.encode(value))) == as_told(value)


@given(tasks)
def test_a_record_is_plain_json_with_the_go_librarys_names(value: Task) -> None:
    record = json.loads(codec.encode(value))
    assert {
        "task_id",
        "created_at",
        "updated_at",
        "queue_name",
        "job_name",
        "args_map",
        "current_handler_index",
        "original_args_map",
    } <= record.keys()
    assert record["args_map"] == json.loads(bytes(value.args_map))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_never_worse(body: bytes) -> None:
    with contextlib.suppress(codec.Unreadable):
        codec.decode(body)


@given(tasks, st.data())
def test_a_damaged_record_is_read_or_refused_never_worse(value: Task, data: st.DataObject) -> None:
    body = bytearray(codec.encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(codec.Unreadable):
        codec.decode_args(codec.decode(bytes(body)).args_map)


def test_json_with_spaces_and_unknown_fields_is_read() -> None:
    record = json.loads(codec.encode(task())) | {"more": {"of": "this"}}
    read = codec.decode(json.dumps(record, indent=2).encode())
    assert codec.decode_args(read.args_map) == {"order": 42}


@pytest.mark.parametrize("field", ["args_map", "original_args_map"])
@pytest.mark.parametrize("value", [[1], "text", 7, None])
def test_args_that_are_no_map_make_a_record_unreadable(field: str, value: object) -> None:
    record = json.loads(codec.encode(task())) | {field: value}
    with pytest.raises(codec.Unreadable):
        codec.decode(json.dumps(record).encode())


def test_a_newer_record_is_refused_and_says_what_to_upgrade() -> None:
    with pytest.raises(codec.Unreadable, match="upgrade gotasks"):
        codec.decode(codec.encode(task(v=codec.VERSION + 1)))


def test_times_are_rfc_3339_in_utc() -> None:
    for stamp in (codec.now(), codec.in_future(3600)):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", stamp)
    assert codec.in_future(60) > codec.now()


def test_age_is_never_negative_and_never_raises() -> None:
    age = codec.age(codec.now())
    assert age is not None
    assert 0 <= age < 5
    past = codec.age("2021-01-01T08:00:00+08:00")  # as the Go library writes it
    assert past is not None
    assert past > 10**8
    assert codec.age(codec.in_future(3600)) == 0
    for bad in ("", "yesterday", "2021-01-01T00:00:00", "2021"):
        assert codec.age(bad) is None


# -- room to bury -------------------------------------------------------------------------------

LIMIT = 256 * 1024


@pytest.mark.parametrize("letter", ["x", "é", "\n", '"', "\x00", "😀"])
def test_the_log_of_a_record_that_was_allowed_always_fits(letter: str) -> None:
    """JSON may need six bytes for a character."""
    filler = "y" * (LIMIT - codec.ROOM_TO_BURY - 600)
    value = task(args_map=codec.encode_args({"filler": filler}), original_args_map=msgspec.Raw(b"{}"))
    assert LIMIT - codec.ROOM_TO_BURY - 400 < len(codec.encode(value)) <= LIMIT - codec.ROOM_TO_BURY
    failure = Failure(
        outcome=Outcome.FAILED,
        error=letter * 1_000_000,
        at=codec.now(),
        step="s" * 200,
        traceback=letter * 1_000_000,
    )
    body = codec.with_failure(value, failure, LIMIT)
    assert len(body) <= LIMIT
    log = codec.decode(body).result_log
    assert isinstance(log, Failure)
    assert (log.outcome, log.step) == (failure.outcome, failure.step)
    assert log.error.endswith(letter * 100)
    assert log.traceback.endswith(letter * 100)


def test_a_log_that_fits_is_kept_whole() -> None:
    failure = Failure(
        outcome=Outcome.FAILED, error="e" * 5000, at=codec.now(), step="s", traceback="t" * 9000
    )
    log = codec.decode(codec.with_failure(task(), failure, LIMIT)).result_log
    assert log == failure


@given(st.binary(max_size=500))
def test_a_body_that_cant_be_read_is_wrapped_byte_by_byte(body: bytes) -> None:
    failure = Failure(outcome=Outcome.UNREADABLE, error="why", at=codec.now())
    wrapped = codec.decode(codec.wrap("id", "orders", body, failure, LIMIT))
    assert (wrapped.task_id, wrapped.queue_name, wrapped.result_log) == ("id", "orders", failure)
    assert base64.b64decode(wrapped.raw or "") == body


def test_a_body_that_is_too_large_to_be_wrapped_is_left_as_it_came() -> None:
    failure = Failure(outcome=Outcome.UNREADABLE, error="why", at=codec.now())
    assert codec.wrap("id", "orders", b"x" * LIMIT, failure, LIMIT) == b"x" * LIMIT


@given(st.text())
def test_clean_text_can_always_be_stored(value: str) -> None:
    assert codec.decode(codec.encode(task(job_name=codec.clean(value)))).job_name == codec.clean(value)
