"""Options that commands share, and their environment variables."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def option(*declarations: str, envvar: str | None = None, **attributes: Any) -> Callable[[F], F]:
    """`click.option` with an environment variable that the help shows: GOTASKS_ and the long flag's name."""
    flag = next(each for each in declarations if each.startswith("--")).partition("/")[0]
    name = envvar or "GOTASKS_" + flag[2:].replace("-", "_").upper()
    return click.option(*declarations, envvar=name, show_envvar=True, **attributes)


def app_option(command: F) -> F:
    """--app."""
    text = "The app: an importable module and its App."
    add = option("--app", "app_spec", metavar="MODULE:APP", help=text)
    return add(command)


def broker_option(command: F) -> F:
    """--broker."""
    text = "The broker's URL; goes before the app's own. With a password, better in the environment."
    add = option("--broker", "broker", envvar="GOTASKS_BROKER_URL", metavar="URL", help=text)
    return add(command)


def json_option(command: F) -> F:
    """--json."""
    add = option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout.")
    return add(command)


def yes_option(command: F) -> F:
    """--yes. Not from the environment: it's for this one command."""
    add = click.option("--yes", "-y", "yes", is_flag=True, help="Don't ask.")
    return add(command)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal unless `yes`. Raises click.Abort on a no, UsageError where nobody can be asked."""
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody can be asked here: say --yes")
    click.confirm(question, abort=True, err=True)


def seconds(value: float | str) -> float:
    """The type of an option that takes a number of seconds above 0."""
    number = seconds_or_zero(value)
    if number == 0:
        raise click.BadParameter("it takes a number of seconds above 0")
    return number


def seconds_or_zero(value: float | str) -> float:
    """The type of an option that takes a number of seconds, 0 included."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise click.BadParameter(f"it takes a number of seconds, not {value!r}")
    return number


def key_values(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """A callback for `key=json` words, as in `order=42`, `name='"Ann"'`, `tags='["a", "b"]'`."""
    return dict(_key_value(value) for value in values)


def _key_value(value: str) -> tuple[str, Any]:
    key, equals, text = value.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{value!r} isn't key=json, as in order=42")
    try:
        return key, strict_json(text)
    except ValueError:
        quoted = f"{key}='{json.dumps(text)}'"
        raise click.BadParameter(
            f"the value of {key!r} isn't JSON; a string needs its quotes: {quoted}"
        ) from None


def args_map(text: str, what: str) -> dict[str, Any]:
    """An args map from JSON. Raises UsageError that begins with `what`."""
    try:
        value = strict_json(text)
    except ValueError as error:
        raise click.UsageError(f"{what} isn't JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError(f'{what} is no JSON object: an args map looks like {{"order": 42}}')
    return value


def strict_json(text: str) -> Any:
    """A value from JSON. Raises ValueError, also for NaN and Infinity, which aren't JSON."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} isn't JSON")
