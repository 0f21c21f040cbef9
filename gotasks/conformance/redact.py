"""Redact: what rows say of a broker must not show its password, whatever its driver has put into an error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import quote

from gotasks.broker import BrokerURL
from gotasks.errors import InvalidURL


def redact(text: str, url: str) -> str:
    """The text without the secrets of `url`, and without what a terminal or a file can't take."""
    text = text.replace(url, str(BrokerURL(url)))
    for secret in _secrets(BrokerURL(url)):
        once = quote(secret, safe="")
        for written in {secret, once, quote(once, safe="")}:
            text = re.sub(rf"(?<!\w){re.escape(written)}(?!\w)", "***", text)
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)


def _secrets(url: BrokerURL) -> Iterator[str]:
    """The passwords, and what else the URL hides; also those of a URL that is one of its parameters."""
    if url.password:
        yield url.password
    for name, value in url.params.items():
        if _is_secret(url, name):
            yield value
        elif "://" in value:
            with suppress(InvalidURL):
                yield from _secrets(BrokerURL(value))


def _is_secret(url: BrokerURL, name: str) -> bool:
    """Whether the URL itself hides this parameter."""
    return f"{name}=***" in str(url)
