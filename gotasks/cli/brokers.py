"""`gotasks brokers`: which URLs can be used here."""

from __future__ import annotations

from contextlib import closing
from importlib.metadata import EntryPoint
from typing import Any

import click

from gotasks.broker import Capability
from gotasks.cli import exits
from gotasks.cli.options import json_option
from gotasks.cli.output import print_json, print_table
from gotasks.discovery import broker_class, distribution, installed, open_broker
from gotasks.errors import GotasksError, MissingDriver


@click.command(epilog=exits.EPILOG)
@json_option
def brokers(*, as_json: bool) -> None:
    """List the brokers that are installed and what they can do.

    Where a driver is missing, the line says how to install it.
    """
    found = [_describe(entry) for entry in installed()]
    if as_json:
        print_json(found)
        return
    print_table(
        ("scheme", "from", "class", "capabilities"),
        [
            (
                f"{each['scheme']}://",
                f"{each['distribution']} {each['version'] or ''}".rstrip(),
                each["class"].rpartition(":")[2],
                each["error"] or " ".join(each["capabilities"] or ["by URL"]),
            )
            for each in found
        ],
    )


def _describe(entry: EntryPoint) -> dict[str, Any]:
    capabilities, error = None, None
    try:
        capabilities = _capabilities(entry.name)
    except GotasksError as problem:
        error = str(problem)
    except (
        Exception
    ) as problem:  # a plug-in may fail at import in any way; the others are listed all the same
        error = f"{type(problem).__name__}: {problem}"
    return {
        "scheme": entry.name,
        "distribution": distribution(entry),
        "version": entry.dist.version if entry.dist is not None else None,
        "class": entry.value,
        "capabilities": capabilities,
        "error": error,
    }


def _capabilities(scheme: str) -> list[str] | None:
    """The names; None where they depend on the rest of the URL. Raises MissingDriver."""
    cls = broker_class(scheme)
    value = getattr(cls, "capabilities", None)
    # Some need their driver only with a URL that names a server; none of these ever connects.
    for url in (f"{scheme}://", f"{scheme}://localhost/gotasks"):
        try:
            broker = open_broker(url)
        except MissingDriver:
            raise
        except GotasksError:
            continue
        with closing(broker):
            value = value if isinstance(value, Capability) else broker.capabilities
    return [str(each.name) for each in Capability if each in value] if isinstance(value, Capability) else None
