"""Place: where the tasks of a run wait. Where nobody names a broker, it's a file in this folder, for this run only."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from gotasks.broker import Broker
from gotasks.demo.files import to_text
from gotasks.demo.screen import Screen
from gotasks.discovery import broker_class, open_broker
from gotasks.errors import MissingDriver

#: What SQLite makes beside a database, and leaves there if nobody closed it.
_BESIDE = ("-wal", "-shm", "-journal")


@dataclass(frozen=True)
class Place:
    """A broker, not yet connected."""

    url: str
    broker: Broker
    file: str | None = None  #: as text: a file of this run's own, removed when it's over


@contextmanager
def place(url: str | None, spare: Path, screen: Screen) -> Iterator[Place]:
    """The broker at `url`; None: the default. Leave it when nobody works there any more.

    `spare`: a folder for the file where the working folder takes none; it's the caller's to remove. Raises what
    `open_broker` raises.
    """
    if url is not None:
        yield Place(url, open_broker(url))
        return
    try:
        broker_class("sqlite")
    except MissingDriver as missing:
        screen.say(f"{missing}. Without it there is only this process, and nobody is killed", "yellow")
        yield Place("memory://", open_broker("memory://"))
        return
    file = _new_file(spare, screen)
    url = f"sqlite:///{quote(str(file))}"
    try:
        yield Place(url, open_broker(url), to_text(file))
    finally:
        for ending in ("", *_BESIDE):
            with suppress(OSError):
                Path(f"{file}{ending}").unlink()


def _new_file(spare: Path, screen: Screen) -> Path:
    """An empty file that wasn't there before, so that nobody's is touched, nor that of another demo beside this one."""
    try:
        return Path(_make(".").name)  # a short name; the worker processes share this working folder
    except OSError as error:
        screen.say(f"this folder takes no file ({error.strerror}), so the tasks wait elsewhere", "yellow")
        return _make(spare)


def _make(folder: str | Path) -> Path:
    descriptor, path = tempfile.mkstemp(prefix="gotasks-demo-", suffix=".db", dir=folder)
    os.close(descriptor)
    return Path(path)
