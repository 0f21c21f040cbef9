"""Published totals: each of several worker processes writes its own into a file, and one of them all adds them up."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from gotasks.errors import ConfigurationError
from gotasks.metrics import totals
from gotasks.metrics.totals import Totals

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger("gotasks")

#: Seconds after which another write would show in a file's time, however coarse that is.
_SETTLED = 2.0


class Publisher:
    """Writes totals into a file, on a daemon thread: at once, then every so often, and when it is closed.

    A reader sees a whole file, the old or the new one. A process that is killed loses what came since the last
    write. `with`, or `close()` it.
    """

    def __init__(self, path: Path, every: float, run: str, current: Callable[[], Totals]) -> None:
        """Raises ConfigurationError if the file can't be written."""
        if not 0 < every < float("inf"):
            raise ConfigurationError(f"every is a number of seconds above 0, not {every!r}")
        self._path = path
        self._every = every
        self._run = run
        self._current = current
        self._failing = False
        self._closing = threading.Event()
        try:
            self._write()
        except OSError as error:
            raise ConfigurationError(
                f"metrics can't be published in {str(path)!r}: {error.strerror}"
            ) from None
        self._thread = threading.Thread(target=self._main, name="gotasks-publisher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write once more and stop. Idempotent."""
        self._closing.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _main(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(self._every)
            try:
                self._write()
                self._failing = False
            except Exception:
                if not self._failing:
                    logger.exception("metrics can't be published in %r; it is tried again", str(self._path))
                self._failing = True

    def _write(self) -> None:
        data = totals.encode(self._run, self._current())
        beside = self._path.with_name(f".{self._path.name}.tmp")
        beside.write_bytes(data)
        beside.replace(self._path)


class _Process:
    """What one file has said."""

    def __init__(self) -> None:
        self.seen: tuple[int, ...] = ()  #: time, size and inode of a file that needn't be read again
        self.run = ""
        self.last = Totals()


class Published:
    """Adds up what processes publish in one directory. Safe from any thread.

    What was read once goes on to count when its file has vanished or can't be read, or a new process has taken
    over its id: sums never go back while this object lives.
    """

    def __init__(self, directory: Path, living: Callable[[], Collection[int]]) -> None:
        """`living` gives the ids of the processes that live. Raises ConfigurationError: no such directory."""
        if not directory.is_dir():
            raise ConfigurationError(f"metrics: there is no directory {str(directory)!r} to read from")
        self._directory = directory
        self._living = living
        self._processes: dict[int, _Process] = {}
        self._before = Totals()  #: sums of processes whose id has been given to another one
        self._lock = threading.Lock()

    def totals(self) -> Totals:
        """The sums of all processes that ever were, the gauges of those that live. Raises what `living` does."""
        with self._lock:
            self._read()
            living = frozenset(self._living())
            result = Totals()
            result.add_sums(self._before.sums)
            for pid, process in self._processes.items():
                result.add_sums(process.last.sums)
                if pid in living:
                    result.add_gauges(process.last)
            return result

    def _read(self) -> None:
        with contextlib.suppress(OSError), os.scandir(self._directory) as files:
            for file in files:
                pid, dot, kind = file.name.partition(".")
                if dot and kind == "json" and pid.isascii() and pid.isdigit():
                    self._read_file(Path(file.path), self._processes.setdefault(int(pid), _Process()))

    def _read_file(self, path: Path, process: _Process) -> None:
        try:
            stat = path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen == process.seen:
                return
            run, last = totals.decode(path.read_bytes())
        except (OSError, ValueError):  # vanished, or half of a file: what it said before still counts
            return
        if run != process.run:
            self._before.add_sums(process.last.sums)
        process.run, process.last = run, last
        process.seen = seen if time.time() - stat.st_mtime > _SETTLED else ()
