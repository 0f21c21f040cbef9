"""Ids and names that a broker can store."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotasks.errors import ConfigurationError, InvalidName
from gotasks.task import Task, check_queue_name, check_task_id, new_task_id


def test_a_new_id_is_a_uuid_of_version_7_and_of_now() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(new_task_id())
    after = time.time_ns() // 1_000_000
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= after
    assert check_task_id(str(made)) == str(made)


def test_new_ids_of_many_threads_are_all_different() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [
            each
            for part in pool.map(lambda _: [new_task_id() for _ in range(2000)], range(8))
            for each in part
        ]
    assert len(set(made)) == 16_000


@pytest.mark.parametrize("good", ["a", "A-Z_09", "x" * 64])
def test_a_good_id(good: str) -> None:
    assert check_task_id(good) == good


@pytest.mark.parametrize("bad", ["", "x" * 65, "a b", "a.b", "a:b", "a\n", "ä", "٣", None, 7, b"a"])
def test_a_bad_id(bad: str) -> None:
    with pytest.raises(InvalidName):
        check_task_id(bad)


@pytest.mark.parametrize("good", ["a", "A-Z_.09", "x" * 128])
def test_a_good_queue(good: str) -> None:
    assert check_queue_name(good) == good


@pytest.mark.parametrize("bad", ["", "x" * 129, "a b", "a:b", "a/b", "{a}", "a\n", "ä", None, 7])
def test_a_bad_queue(bad: str) -> None:
    with pytest.raises(ConfigurationError):
        check_queue_name(bad)


@given(st.text())
def test_any_text_is_accepted_or_refused_by_name(text: str) -> None:
    for check, longest in ((check_task_id, 64), (check_queue_name, 128)):
        try:
            assert check(text) == text
        except InvalidName:
            continue
        assert text.isascii()
        assert 0 < len(text) <= longest


def test_a_record_has_the_go_librarys_fields_first() -> None:
    assert Task.__struct_fields__[:9] == (
        "task_id",
        "created_at",
        "updated_at",
        "queue_name",
        "job_name",
        "args_map",
        "current_handler_index",
        "original_args_map",
        "result_log",
    )
