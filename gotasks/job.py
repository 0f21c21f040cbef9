"""Job: a named chain of handlers. A handler's place in the chain is a step."""

from __future__ import annotations

import dataclasses
import inspect
import random
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, overload

from gotasks.args import from_args_map
from gotasks.errors import ConfigurationError, InvalidName

P = ParamSpec("P")
R = TypeVar("R")

_MAPS = re.compile(r"^(typing\.|t\.|collections\.abc\.|gotasks\.)?(ArgsMap|[dD]ict|(Mutable)?Mapping|Any)\b")
#: A sleep between tries is never longer than this, whatever the backoff makes of it. Seconds.
MAX_SLEEP = 86_400.0


@dataclasses.dataclass(frozen=True)
class Retry:
    """How a reentrant handler is retried after an exception.

    Attributes:
        max_times: retries after the first try; 3 means up to 4 calls.
        sleepy_ms: milliseconds before the first retry.
        backoff: each further sleep is this many times longer.
        jitter: 0 to 1; each sleep is changed by up to this part of itself, at random, up or down.
        on: exceptions that are retried; any other sends the task to the fatal queue at once.
    """

    max_times: int = 3
    sleepy_ms: float = 100
    backoff: float = 1.0
    jitter: float = 0.0
    on: tuple[type[BaseException], ...] = (Exception,)

    def __post_init__(self) -> None:
        if isinstance(self.max_times, bool) or not isinstance(self.max_times, int) or self.max_times < 0:
            raise ConfigurationError(f"max_times is a whole number from 0, not {self.max_times!r}")
        if not 0 <= self.sleepy_ms < float("inf"):
            raise ConfigurationError(f"sleepy_ms is a number of milliseconds from 0, not {self.sleepy_ms!r}")
        if not 1 <= self.backoff < float("inf"):
            raise ConfigurationError(f"backoff is a factor of at least 1, not {self.backoff!r}")
        if not 0 <= self.jitter <= 1:
            raise ConfigurationError(f"jitter is a part between 0 and 1, not {self.jitter!r}")
        if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in self.on):
            raise ConfigurationError("on= takes exception types, as in on=(OSError, TimeoutError)")

    def sleep(self, tries: int) -> float:
        """Seconds to sleep after `tries` failed tries (1 = the first has failed)."""
        try:
            seconds = self.sleepy_ms / 1000 * self.backoff ** (tries - 1)
        except OverflowError:
            seconds = MAX_SLEEP
        spread = random.uniform(-self.jitter, self.jitter) if self.jitter else 0.0
        return float(min(seconds * (1 + spread), MAX_SLEEP))


class Handler(Generic[P, R]):
    """A function with options for its place in a chain. Calling it calls the function, nothing more."""

    def __init__(
        self,
        func: Callable[P, R],
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
    ) -> None:
        if not callable(func):
            raise ConfigurationError(f"a handler is a function, not {func!r:.100}")
        if timeout is not None and not 0 < timeout < float("inf"):
            raise ConfigurationError(f"timeout is a number of seconds above 0, not {timeout!r}")
        # Options may be added one by one: step(reentrant(h), name=…)
        inner: Handler[P, R] | None = func if isinstance(func, Handler) else None
        self.func: Callable[P, R] = inner.func if inner else func
        self.name: str | None = name or (inner.name if inner else None)
        self.retry: Retry | None = retry or (inner.retry if inner else None)
        self.timeout: float | None = timeout or (inner.timeout if inner else None)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.func(*args, **kwargs)

    def __repr__(self) -> str:
        kind = "reentrant" if self.retry else "step"
        return f"{kind}({getattr(self.func, '__qualname__', self.func)!s})"


@overload
def reentrant(
    handler: Callable[P, R],
    *,
    max_times: int = ...,
    sleepy_ms: float = ...,
    backoff: float = ...,
    jitter: float = ...,
    on: type[BaseException] | tuple[type[BaseException], ...] = ...,
    timeout: float | None = ...,
) -> Handler[P, R]: ...
@overload
def reentrant(
    *,
    max_times: int = ...,
    sleepy_ms: float = ...,
    backoff: float = ...,
    jitter: float = ...,
    on: type[BaseException] | tuple[type[BaseException], ...] = ...,
    timeout: float | None = ...,
) -> Callable[[Callable[P, R]], Handler[P, R]]: ...
def reentrant(
    handler: Callable[..., Any] | None = None,
    *,
    max_times: int = 3,
    sleepy_ms: float = 100,
    backoff: float = 1.0,
    jitter: float = 0.0,
    on: type[BaseException] | tuple[type[BaseException], ...] = (Exception,),
    timeout: float | None = None,
) -> Any:
    """Mark a handler as safe to run more than once: it is retried, and run again after a crash.

    As a wrapper, `reentrant(h, max_times=3)`, it marks one place in one chain; the same function may be plain in
    another. As a decorator, `@reentrant` or `@reentrant(max_times=3)`, it marks the function wherever it is used.

    Args: see `Retry`; `timeout` in seconds, see `step`. Raises ConfigurationError on a value out of range.
    """
    retry = Retry(max_times, sleepy_ms, backoff, jitter, on if isinstance(on, tuple) else (on,))
    if handler is None:
        return lambda func: Handler(func, retry=retry, timeout=timeout)
    return Handler(handler, retry=retry, timeout=timeout)


def step(handler: Callable[P, R], *, name: str | None = None, timeout: float | None = None) -> Handler[P, R]:
    """Give a handler's place in a chain a name of its own, a timeout, or both.

    Args:
        name: stored in every task; by default the function's `__qualname__`.
        timeout: seconds that one try may take. An async handler is cancelled then. A plain function can't be
            stopped: its slot stays taken until it returns, its result is discarded, and the task is tried again
            if the handler is reentrant, else buried in doubt.
    """
    return Handler(handler, name=name, timeout=timeout)


class Step:
    """A handler at its place in a chain: what the runner calls."""

    __slots__ = ("convert", "func", "is_async", "name", "retry", "timeout")

    def __init__(self, handler: Callable[..., Any]) -> None:
        wrapped = handler if isinstance(handler, Handler) else Handler(handler)
        self.func = wrapped.func
        self.name = _step_name(wrapped)
        self.retry = wrapped.retry
        self.timeout = wrapped.timeout
        self.is_async = inspect.iscoroutinefunction(self.func) or inspect.iscoroutinefunction(
            getattr(self.func, "__call__", None)  # noqa: B004 - the method itself is looked at, not callability
        )
        self.convert = _converter(self.func, self.name)

    def prepare(self, args: dict[str, Any]) -> Any:
        """The argument for the handler: the map itself, or an object of the annotated class. Raises InvalidArgs."""
        return args if self.convert is None else from_args_map(args, self.convert)


class Job:
    """A registered chain. Made by `App.register` and `App.job`.

    Calling it, `checkout({"order": 42})`, runs the whole chain in this thread without a broker, retries and all,
    and returns the final args map; the handler's own exception comes through.
    """

    def __init__(
        self,
        name: str,
        handlers: tuple[Callable[..., Any], ...],
        call: Callable[[Job, object], dict[str, Any]],
    ) -> None:
        if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
            raise InvalidName(f"a job's name is 1 to 200 printable characters, not {name!r:.250}")
        if not handlers:
            raise ConfigurationError(f"job {name!r} has no handlers: give it at least one")
        self._call = call
        self.name = name
        self.steps = tuple(Step(handler) for handler in handlers)
        self.step_names = tuple(each.name for each in self.steps)
        for repeated in {each for each in self.step_names if self.step_names.count(each) > 1}:
            raise InvalidName(
                f"job {name!r} has two steps named {repeated!r}: name one, as in step(handler, name='again')"
            )

    def __call__(self, args: Mapping[str, Any] | object) -> dict[str, Any]:
        return self._call(self, args)

    def __repr__(self) -> str:
        return f"<Job {self.name}: {self.describe()}>"

    def describe(self) -> str:
        """The chain in one line; `*` marks reentrant steps."""
        return " → ".join(each.name + ("*" if each.retry else "") for each in self.steps)


def _step_name(handler: Handler[..., Any]) -> str:
    name = handler.name if handler.name is not None else getattr(handler.func, "__qualname__", None)
    if name is None or (isinstance(name, str) and name.endswith("<lambda>")):
        raise InvalidName(
            "a lambda, a partial or an object as handler needs a name: step(handler, name='resize')"
        )
    if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
        raise InvalidName(f"a step's name is 1 to 200 printable characters, not {name!r:.250}")
    return name


def _converter(func: Callable[..., Any], name: str) -> type | None:
    """The class that the handler's parameter is annotated with; None if it takes the map as it is."""
    try:
        parameters = list(inspect.signature(func).parameters.values())
    except (ValueError, TypeError):
        return None  # a built-in without a signature takes the map
    positional = [
        each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    needed = [
        each for each in parameters if each.default is each.empty and each.kind is not each.VAR_POSITIONAL
    ]
    needed = [each for each in needed if each.kind is not each.VAR_KEYWORD]
    takes_any = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    if (not positional and not takes_any) or any(each is not positional[0] for each in needed if positional):
        raise ConfigurationError(
            f"handler {name!r} takes {inspect.signature(func)}: a handler takes one argument, its args map"
        )
    if not positional or positional[0].annotation is inspect.Parameter.empty:
        return None
    annotation = _resolved(func, positional[0], name)
    origin = typing.get_origin(annotation) or annotation
    if annotation is Any or origin is object:
        return None
    if hasattr(origin, "__required_keys__") or _has_fields(origin):  # a TypedDict, also of typing_extensions
        return typing.cast(type, annotation)
    if isinstance(origin, type) and issubclass(dict, origin):  # dict, Mapping, MutableMapping
        return None
    raise ConfigurationError(
        f"handler {name!r} takes {annotation!r}: annotate a dict, a dataclass, a msgspec struct, an attrs class or a "
        "pydantic model"
    )


def _resolved(func: Callable[..., Any], parameter: inspect.Parameter, name: str) -> Any:
    annotation = parameter.annotation
    if not isinstance(annotation, str):
        return annotation
    if _MAPS.match(annotation):
        return dict  # often imported for the type checker only, so not to be found at run time
    target = func if inspect.isroutine(func) else getattr(func, "func", type(func).__call__)
    only = types.SimpleNamespace(__annotations__={name: annotation})  # the others may well be beyond finding
    try:
        return typing.get_type_hints(only, getattr(inspect.unwrap(target), "__globals__", {}))[name]
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise ConfigurationError(
            f"handler {name!r}: the annotation {annotation!r} can't be found when the job is registered "
            f"({error}): import it outside 'if TYPE_CHECKING'"
        ) from error


def _has_fields(cls: object) -> bool:
    return isinstance(cls, type) and (
        dataclasses.is_dataclass(cls)
        or hasattr(cls, "__struct_fields__")
        or hasattr(cls, "__attrs_attrs__")
        or hasattr(cls, "model_validate")
    )
