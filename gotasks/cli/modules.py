"""Modules of the user: from 'shop.tasks:app' to the App, with errors that say whose mistake it was."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from gotasks.app import App
from gotasks.errors import ConfigurationError


def load_app(spec: str) -> App:
    """The app that `module:attribute` names; without an attribute, the only App of the module.

    Raises ConfigurationError.
    """
    if "://" in spec:
        raise ConfigurationError(
            f"an app is named as in shop.tasks:app; {spec!r} is a URL, which goes to --broker"
        )
    name, colon, attribute = spec.partition(":")
    if not name or (colon and not attribute):
        raise ConfigurationError(f"an app is named as in shop.tasks:app, not {spec!r}")
    if "/" in name or name.endswith(".py"):
        guess = name.removesuffix(".py").removeprefix("./").replace("/", ".")
        raise ConfigurationError(
            f"{name!r} is a file: name the module as Python imports it, perhaps {guess!r}"
        )
    module = import_module(name)
    return _named(module, name, attribute) if attribute else _only(module, name)


def import_module(name: str) -> ModuleType:
    """Import a module of the user, from the current directory too. Raises ConfigurationError."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    module: ModuleType = _importing(f"module {name!r}", name, lambda: importlib.import_module(name))
    return module


def import_included(app: App) -> None:
    """Import the modules of App(include=[…]). Raises ConfigurationError."""
    _importing("a module that the app includes", None, app.import_included)


def _importing(what: str, name: str | None, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name is not None and (name == missing or name.startswith(f"{missing}.")) and _is_ours(error):
            raise ConfigurationError(
                f"there is no module {missing!r}: run gotasks where it can be imported from (this is {Path.cwd()}), "
                "install it, or set PYTHONPATH"
            ) from error
        raise _failed(what, error) from error
    except (Exception, SystemExit) as error:
        raise _failed(what, error) from error


def _failed(what: str, error: BaseException) -> ConfigurationError:
    kind = type(error).__name__
    return ConfigurationError(
        f"{what} failed when it was imported{_place(error)}: {kind}: {error} (GOTASKS_DEBUG=1 shows the traceback)"
    )


def _is_ours(error: BaseException) -> bool:
    """Whether the import machinery itself didn't find the module, rather than a module that was found."""
    return not _frames(error)


def _place(error: BaseException) -> str:
    """Where in the user's code it happened."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    frames = _frames(error)
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of the traceback that are neither ours nor the import machinery's."""
    package = str(Path(__file__).parent.parent) + os.sep
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((package, "<frozen")) and frame.filename != importlib.__file__
    ]


def _named(module: ModuleType, name: str, attribute: str) -> App:
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            close = difflib.get_close_matches(attribute, _apps(module), n=1)
            hint = f"did you mean {name}:{close[0]}?" if close else _what_there_is(module, name)
            raise ConfigurationError(f"module {name!r} has no {attribute!r}; {hint}")
        value = getattr(value, part)
    if not isinstance(value, App):
        raise ConfigurationError(
            f"{name}:{attribute} is a {type(value).__name__}, not an App; {_what_there_is(module, name)}"
        )
    return value


def _only(module: ModuleType, name: str) -> App:
    apps = _apps(module)
    different = {id(app): app for app in apps.values()}
    if len(different) == 1:
        return next(iter(different.values()))
    if different:
        raise ConfigurationError(f"say which app of module {name!r}; {_what_there_is(module, name)}")
    raise ConfigurationError(_what_there_is(module, name))


def _apps(module: ModuleType) -> dict[str, App]:
    return {key: value for key, value in vars(module).items() if isinstance(value, App)}


def _what_there_is(module: ModuleType, name: str) -> str:
    apps = _apps(module)
    if not apps:
        return f"module {name!r} has no App: make one, as in app = App('redis://127.0.0.1:6379/0')"
    return f"it has {', '.join(f'{name}:{key}' for key in apps)}"
