"""Errors: one base, a sentence each, and what they carry."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from gotasks import errors
from gotasks.errors import (
    BrokerUnavailable,
    GotasksError,
    InvalidArgs,
    PayloadTooLarge,
    Rejected,
    TaskFailed,
    TaskNotFound,
    UnknownJob,
    WaitTimeout,
)

CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, GotasksError)]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_has_the_one_base_and_speaks_for_itself(cls: type[GotasksError]) -> None:
    assert issubclass(cls, GotasksError)
    if cls in (TaskFailed, Rejected, PayloadTooLarge):
        return
    assert str(cls("a message")) == "a message"
    assert str(cls()).endswith((".", ":", "this")) or len(str(cls())) > 10


def test_errors_can_be_caught_as_what_they_are_to_python() -> None:
    for error, kind in (
        (WaitTimeout("x"), TimeoutError),
        (UnknownJob("x"), LookupError),
        (TaskNotFound("x"), LookupError),
        (InvalidArgs("x"), ValueError),
    ):
        assert isinstance(error, kind)
        assert str(error) == "x"


SAMPLES: list[GotasksError] = [
    GotasksError("a"),
    WaitTimeout("a"),
    TaskFailed("id", "charge", "ValueError: no", "Traceback"),
    TaskFailed("id", None, "no"),
    BrokerUnavailable("away", ids=["a", "b"]),
    Rejected("no", ids=["a"]),
    PayloadTooLarge("large", ids=["a"]),
]


@pytest.mark.parametrize("how", ["pickle", "copy"])
@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_errors_go_from_process_to_process(error: GotasksError, how: str) -> None:
    """A process pool breaks for good when the error of a call can't be unpickled."""
    again = pickle.loads(pickle.dumps(error)) if how == "pickle" else copy.copy(error)  # noqa: S301 - our own
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_what_a_failed_task_says() -> None:
    error = TaskFailed("id", "charge", "ValueError: no", "Traceback")
    assert str(error) == "task id failed at step 'charge': ValueError: no"
    assert str(TaskFailed("id", None, "no")) == "task id failed: no"
