"""Jobs, steps and retries: what is refused when a program is loaded rather than when a task runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotasks import App, ArgsMap, Retry, reentrant, step
from gotasks.errors import ConfigurationError, GotasksError, InvalidName
from gotasks.job import MAX_SLEEP, Job, Step

if TYPE_CHECKING:
    from decimal import Decimal


def handler(args: ArgsMap) -> ArgsMap | None:
    return args


def other(args: ArgsMap) -> ArgsMap | None:
    return args


def make(*handlers: Any, name: str = "job") -> Job:
    return App("memory://").register(name, *handlers)


class Tool:
    def __call__(self, args: ArgsMap) -> None:
        return None

    def method(self, args: ArgsMap) -> None:
        return None


# -- names --------------------------------------------------------------------------------------


def test_a_steps_name_is_its_functions_or_the_one_that_it_is_given() -> None:
    job = make(
        handler,
        reentrant(other),
        Tool().method,
        step(Tool(), name="object"),
        step(handler, name="x"),
    )
    assert job.step_names == ("handler", "other", "Tool.method", "object", "x")
    assert job.describe() == "handler → other* → Tool.method → object → x"
    assert repr(job) == f"<Job job: {job.describe()}>"


@pytest.mark.parametrize(
    "nameless", [lambda args: None, partial(handler), Tool()], ids=["lambda", "partial", "object"]
)
def test_what_has_no_name_needs_one(nameless: Any) -> None:
    with pytest.raises(InvalidName, match=r"step\(handler, name="):
        make(nameless)
    assert make(step(nameless, name="named")).step_names == ("named",)
    assert make(reentrant(step(nameless, name="named"))).step_names == ("named",)
    assert make(step(reentrant(nameless), name="named")).step_names == ("named",)


def test_a_name_may_be_there_once_in_a_chain() -> None:
    with pytest.raises(InvalidName, match="two steps named 'handler'"):
        make(handler, other, reentrant(handler))
    assert make(handler, step(handler, name="again")).step_names == ("handler", "again")


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201, "\x00", 7, None])
def test_names_are_short_printable_text(name: Any) -> None:
    with pytest.raises(InvalidName):
        make(handler, name=name)
    if name:
        with pytest.raises((InvalidName, ConfigurationError)):
            make(step(handler, name=name))


def test_names_may_be_in_any_language() -> None:
    assert make(step(handler, name="größe ändern"), name="图像").step_names == ("größe ändern",)


def test_a_job_has_at_least_one_handler_and_handlers_are_callable() -> None:
    with pytest.raises(ConfigurationError, match="no handlers"):
        make()
    for bad in (None, "handler", 7):
        with pytest.raises(ConfigurationError, match="function"):
            make(bad)


# -- what a handler takes -----------------------------------------------------------------------


def takes_nothing() -> None: ...


def takes_two(args: ArgsMap, more: int) -> None: ...


def takes_keyword(args: ArgsMap, *, more: int) -> None: ...


def takes_number(args: int) -> None: ...


def takes_text(args: str) -> None: ...


def takes_unknown(args: NoSuchClass) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    "bad", [takes_nothing, takes_two, takes_keyword, takes_number, takes_text, takes_unknown]
)
def test_a_handler_takes_one_args_map_and_this_is_seen_at_once(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match=bad.__name__):
        make(bad)


@dataclasses.dataclass
class Order:
    order: int


def takes_default(args: ArgsMap, more: int = 7, *rest: int, key: str = "", **others: int) -> None: ...


def takes_any(args: Any) -> None: ...


def takes_object(args: object) -> None: ...


def takes_mapping(args: Mapping[str, Any]) -> None: ...


def takes_mutable(args: MutableMapping[str, int]) -> None: ...


def takes_dict(args: dict[str, Any]) -> None: ...


def takes_bare(args) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001


def takes_all(*args: ArgsMap) -> None: ...


@pytest.mark.parametrize(
    "good",
    [takes_default, takes_any, takes_object, takes_mapping, takes_mutable, takes_dict, takes_bare, takes_all],
)
def test_a_handler_may_take_the_map_as_it_is(good: Any) -> None:
    assert make(good).steps[0].convert is None
    assert make(good)({"order": 1}) == {"order": 1}


def takes_order(order: Order) -> Order:
    return Order(order.order + 1)


def returns_what_only_mypy_sees(order: Order) -> Decimal | None:
    return None


def test_a_handler_may_take_an_object() -> None:
    assert make(takes_order).steps[0].convert is Order
    assert make(takes_order)({"order": 1}) == {"order": 2}


def test_what_a_handler_returns_may_be_imported_for_the_type_checker_only() -> None:
    assert make(returns_what_only_mypy_sees).steps[0].convert is Order


# -- options ------------------------------------------------------------------------------------


def test_reentrant_is_a_wrapper_and_a_decorator() -> None:
    @reentrant
    def plain(args: ArgsMap) -> None:
        return None

    @reentrant(max_times=7, sleepy_ms=5)
    def with_options(args: ArgsMap) -> None:
        return None

    wrapped = reentrant(handler, max_times=1)
    assert [each.retry for each in (plain, with_options, wrapped)] == [
        Retry(),
        Retry(max_times=7, sleepy_ms=5),
        Retry(max_times=1),
    ]
    assert wrapped({"a": 1}) == {"a": 1}  # calling it calls the function, nothing more
    assert plain.func.__name__ == "plain"


def test_one_function_may_be_reentrant_in_one_place_and_plain_in_another() -> None:
    careful, plain = make(reentrant(handler, max_times=9)), make(handler)
    assert careful.steps[0].retry == Retry(max_times=9)
    assert plain.steps[0].retry is None


def test_options_may_be_added_one_by_one() -> None:
    for both in (
        step(reentrant(handler, max_times=2), name="x", timeout=3),
        reentrant(step(handler, name="x", timeout=3), max_times=2),
    ):
        made = Step(both)
        assert (made.name, made.timeout, made.retry) == ("x", 3, Retry(max_times=2))
        assert made.func is handler


@pytest.mark.parametrize(
    "options",
    [
        {"max_times": -1},
        {"max_times": 1.5},
        {"max_times": True},
        {"sleepy_ms": -1},
        {"sleepy_ms": float("inf")},
        {"sleepy_ms": float("nan")},
        {"backoff": 0.5},
        {"backoff": float("inf")},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"on": "OSError"},
        {"on": (1,)},
        {"on": (int,)},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("inf")},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(GotasksError):
        reentrant(handler, **options)


@given(
    sleepy_ms=st.floats(0, 1e9),
    backoff=st.floats(1, 1e6),
    jitter=st.floats(0, 1),
    tries=st.integers(1, 10_000),
)
def test_a_sleep_is_within_its_jitter_and_never_longer_than_a_day(
    sleepy_ms: float, backoff: float, jitter: float, tries: int
) -> None:
    seconds = Retry(sleepy_ms=sleepy_ms, backoff=backoff, jitter=jitter).sleep(tries)
    assert 0 <= seconds <= MAX_SLEEP
    try:
        middle = sleepy_ms / 1000 * backoff ** (tries - 1)
    except OverflowError:
        return
    assert seconds <= middle * (1 + jitter) * 1.001
    assert seconds >= min(middle * (1 - jitter) * 0.999, MAX_SLEEP * (1 - jitter))


def test_the_first_sleep_is_sleepy_ms() -> None:
    assert Retry(sleepy_ms=250, backoff=2).sleep(1) == 0.25
    assert Retry(sleepy_ms=250, backoff=2).sleep(3) == 1.0
