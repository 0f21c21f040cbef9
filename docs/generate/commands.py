"""Commands: the page about the command line, from what each command says of itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from gotasks.cli import main

_INTRODUCTION = """# Command line

Every command of `gotasks`, with its options and the environment variables that set them. `gotasks COMMAND --help` says
the same; `python -m docs.generate` makes this page from it.
"""


def page() -> str:
    """The whole page: one chapter each command."""
    context = click.Context(main, info_name="gotasks")
    chapters = [_INTRODUCTION, *_codes(main), *_walk(main, context)]
    return "\n".join(chapters).rstrip() + "\n"


def _walk(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.commands[name]
        inner = click.Context(command, info_name=name, parent=context)
        yield from _chapter(command, inner)
        if isinstance(command, click.Group):
            yield from _walk(command, inner)


def _chapter(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}\n"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```\n"
    yield f"{_prose(command.help or '')}\n"
    options = [each for each in command.params if isinstance(each, click.Option)]
    if options:
        yield "| option | variable | |\n| --- | --- | --- |"
        yield from map(_row, options)
        yield ""


def _row(option: click.Option) -> str:
    names = ", ".join(f"`{each}`" for each in option.opts)
    value = "" if option.is_flag else f" {option.metavar or option.type.name.partition(' ')[0].upper()}"
    if isinstance(option.type, click.Choice):
        value = " " + ", ".join(map(str, option.type.choices))
    variable = f"`{option.envvar}`" if isinstance(option.envvar, str) else ""
    default = f" Default: {option.default}." if option.show_default else ""
    return f"| {names}{_escaped(value)} | {variable} | {_escaped((option.help or '') + default)} |"


def _prose(text: str) -> str:
    """Help as Markdown: click's mark for lines that stay as they are becomes a block of code."""
    paragraphs = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            lines = paragraph.removeprefix("\b").strip("\n").splitlines()
            told = "" if lines[0].startswith(" ") else f"{lines.pop(0)}\n\n"
            paragraphs.append(f"{told}```\n{inspect.cleandoc(chr(10).join(lines))}\n```")
        else:
            paragraphs.append(_escaped(paragraph))
    return "\n\n".join(paragraphs)


def _codes(group: click.Group) -> Iterator[str]:
    """The exit codes, which all commands share."""
    yield "## Exit codes\n"
    yield "| code | |\n| --- | --- |"
    for code, meaning in re.findall(r"^ +(\d+) +(.+)$", group.epilog or "", re.MULTILINE):
        yield f"| {code} | {meaning} |"
    yield "\n`GOTASKS_DEBUG=1` shows the traceback of an error.\n"


def _escaped(text: str) -> str:
    return re.sub(r"([|<>*_])", r"\\\1", text)
