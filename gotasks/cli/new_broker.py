"""`gotasks new-broker`: the skeleton of a plug-in, whose suite runs at once and says what is missing."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import click

from gotasks import __version__
from gotasks.cli import exits
from gotasks.cli.options import json_option
from gotasks.cli.output import print_json
from gotasks.discovery import distribution, installed
from gotasks.errors import ConfigurationError, InvalidName

_NAME = re.compile(r"[a-z][a-z0-9]{0,39}")

#: Where each file of a plug-in goes, and its template. In both, words between @ are filled in.
_FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    ".gitignore": "gitignore.txt",
    ".github/workflows/test.yml": "workflow.yml.txt",
    "@package@/__init__.py": "init.py.txt",
    "@package@/broker.py": "broker.py.txt",
    "@package@/adapter.py": "adapter.py.txt",
    "@package@/py.typed": "",
    "tests/test_conformance.py": "test_conformance.py.txt",
}


@click.command("new-broker", epilog=exits.EPILOG)
@click.argument("name")
@json_option
def new_broker(*, name: str, as_json: bool) -> None:
    """Make the skeleton of a broker plug-in for NAME:// in the new folder gotasks-NAME.

    \b
      gotasks new-broker acme
      cd gotasks-acme
      pip install -e '.[test]'
      pytest                     stops at the first thing that is missing, and says what it is

    It has the entry point, every method of the contract with what it must do, the conformance suite as one test file,
    and a CI file. Nothing that is there is written over.
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    words = {"name": name, "package": f"gotasks_{name}", "class": name.capitalize(), "version": _version()}
    _check(name)
    folder = Path(f"gotasks-{name}")
    try:
        folder.mkdir()
        made = [_make(folder, path, template, words) for path, template in _FILES.items()]
    except FileExistsError:
        raise ConfigurationError(
            f"{folder} is there already, and nothing was changed: move it away, or choose another name"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{folder} can't be made here: {error.strerror or error}") from error
    if as_json:
        print_json({"folder": str(folder), "files": made})
        return
    for each in made:
        click.echo(f"  {folder}/{each}")
    click.echo(f"\n{folder} was made. Next:\n  cd {folder}\n  pip install -e '.[test]'\n  pytest")
    click.echo(
        "\npytest stops at the first thing that is missing, and says what it is; README.md tells the rest."
    )


def _check(name: str) -> None:
    """Raises InvalidName, or ConfigurationError where somebody has this scheme."""
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"{name!r} can't be the name of a broker: it becomes a URL scheme and a package, so take a small letter "
            "and up to 39 small letters or digits"
        )
    for each in installed():
        if each.name == name and distribution(each) != f"gotasks-{name}":
            raise ConfigurationError(
                f"{name}:// is offered by {distribution(each)} already, and one URL can't mean two brokers: choose "
                "another name"
            )


def _version() -> str:
    """The oldest gotasks that will do: this one, without its patches."""
    return ".".join(__version__.split(".")[:2])


def _make(folder: Path, path: str, template: str, words: dict[str, str]) -> str:
    text = (files("gotasks.cli") / "skeleton" / template).read_text("utf-8") if template else ""
    path, text = _filled(path, words), _filled(text, words)
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text, "utf-8")
    return path


def _filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text
