"""Commands in the pages: lines that begin with `gotasks`, perhaps behind variables."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

import click

from gotasks.cli import main
from tests.docs.pages import blocks, prose


class Command(NamedTuple):
    """One line."""

    line: int
    words: list[str]  #: without `gotasks`
    whole: bool = True  #: else what it needs may be left out, as in prose

    def parse(self) -> None:
        """Have click look at it. Raises click.ClickException, or LookupError if there is no such command."""
        words, command = list(self.words), main
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            command = command.commands[words.pop(0)]  # type: ignore[assignment]
        try:
            command.make_context("gotasks", words).close()
        except click.exceptions.NoArgsIsHelpError:
            assert not self.whole
        except click.MissingParameter:
            if self.whole:
                raise


def commands(page: str) -> Iterator[Command]:
    """All that stand in shell blocks, units, manifests and prose."""
    for block in blocks(page):
        if block.language == "":
            lines = block.code.replace("\\\n", " ").splitlines()
        elif block.language == "ini":
            lines = re.findall(r"^ExecStart=\S*/(gotasks .+)$", block.code, re.MULTILINE)
        elif block.language == "yaml":
            lines = [shlex.join(json.loads(each)) for each in re.findall(r"command: (\[.+\])", block.code)]
        else:
            continue
        for number, line in enumerate(lines):
            if found := re.match(r"(?:\w+=\S* )*gotasks( .+)?$", line):
                yield Command(block.line + number, shlex.split(found[1] or "", comments=True))
    for line in re.findall(r"`gotasks ([a-z][^`…]*)`", prose(page)):
        yield Command(0, shlex.split(line), whole=False)
