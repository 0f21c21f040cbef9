"""Args maps: what a handler takes and returns, and typed objects made from them and turned into them."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec

from gotasks.errors import InvalidArgs

#: What a handler takes, and returns for the next one: a dict with string keys and JSON values.
ArgsMap = dict[str, Any]

T = TypeVar("T")

#: Deep enough for data, shallow enough that no decoder's stack is at risk.
MAX_DEPTH = 200

_SCALARS = (str, int, bool, type(None))

#: msgspec learns a class when it first meets it. Two threads that do so at once end the process by SIGSEGV.
_learning = threading.Lock()
_learned: set[type] = set()


def _after_fork() -> None:
    global _learning  # noqa: PLW0603 - another thread may have held it when the process was forked
    _learning = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def to_args_map(value: object) -> ArgsMap:
    """An args map from a mapping, dataclass, msgspec struct, attrs object or pydantic model.

    What JSON has no type for becomes text: datetime, date, time (RFC 3339), timedelta (ISO 8601), UUID, Decimal,
    bytes (base64), an Enum its value; tuples and sets become lists. `from_args_map` with the same class brings
    the types back. Raises InvalidArgs for what isn't a map at the top, a key that isn't a string, NaN and
    infinity, text that isn't valid Unicode, deeper nesting than 200, or a type that isn't known.
    """
    try:
        plain = msgspec.to_builtins(value, enc_hook=dump_model)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidArgs(f"can't make an args map of a {type(value).__name__}: {error}") from error
    if not isinstance(plain, dict):
        raise InvalidArgs(f"an args map is a dict or an object with fields, not a {type(value).__name__}")
    check(plain)
    try:
        # Through JSON, so that it is what the first handler will get.
        return cast("ArgsMap", msgspec.json.decode(msgspec.json.encode(plain)))
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidArgs(f"can't make an args map of a {type(value).__name__}: {error}") from error


def from_args_map(args: Mapping[str, Any], cls: type[T]) -> T:
    """An object of `cls` (dataclass, msgspec struct, attrs, pydantic, TypedDict) from an args map.

    Raises InvalidArgs, naming the field that doesn't fit.
    """
    try:
        validate = getattr(cls, "model_validate", None)  # pydantic's; not a dependency
        if validate is not None:
            return cast("T", validate(args))
        # Not strict: an args map has been through JSON, so a number may arrive as a float, a date as text.
        if cls not in _learned:
            _learn(cls)
        return msgspec.convert(args, cls, strict=False)
    except (ValueError, TypeError, msgspec.MsgspecError) as error:
        raise InvalidArgs(f"the args map doesn't fit {cls.__name__}: {error}") from error


def _learn(cls: type) -> None:
    """Have msgspec learn the class and all that it refers to. None of the class's own code runs under the lock."""
    with _learning:
        msgspec.json.Decoder(cls)
        _learned.add(cls)


def dump_model(value: Any) -> Any:
    """The hook for types that msgspec doesn't know: pydantic models. Raises TypeError for any other."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"a {type(value).__name__} can't be stored as JSON")


def check(args: Mapping[str, Any]) -> None:
    """Raise InvalidArgs for what a JSON encoder would change without a word."""
    for key, value in args.items():
        if type(key) is not str:
            _check_key(key, "args")
        if type(value) not in _SCALARS:
            _check_value(value, ("args", key), 1)


def _check_key(key: object, path: str) -> None:
    if not isinstance(key, str):
        raise InvalidArgs(
            f"{path} has the key {key!r:.50}: keys are strings, since JSON would turn others into text"
        )


def _check_value(value: Any, path: tuple[object, ...], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidArgs(f"the args map is nested deeper than {MAX_DEPTH}")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidArgs(f"{_shown(path)} is {value}: JSON has no such number")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_key(key, _shown(path))
            if type(item) not in _SCALARS:
                _check_value(item, (*path, key), depth + 1)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            if type(item) not in _SCALARS:
                _check_value(item, (*path, index), depth + 1)
    elif not isinstance(value, _SCALARS):
        try:
            plain = msgspec.to_builtins(value, enc_hook=dump_model)
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise InvalidArgs(f"{_shown(path)}: {error}") from error
        _check_value(plain, path, depth + 1)


def _shown(path: tuple[object, ...]) -> str:
    return str(path[0]) + "".join(f"[{key!r:.50}]" for key in path[1:])
