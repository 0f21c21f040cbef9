"""Files: every change of a file that has to outlive something: a kill always, a power cut if `sync` is on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


class Files:
    """The files and directories below a root."""

    def __init__(self, root: Path, *, sync: bool) -> None:
        self._root = root
        self._sync = sync

    def make(self, directory: Path) -> None:
        """A directory, with its parents. The root is for one user: bodies are nobody else's to read."""
        if not directory.is_dir():
            self.make(directory.parent)
            directory.mkdir(mode=0o700 if directory == self._root else 0o777, exist_ok=True)
            self._keep(directory.parent)

    def touch(self, path: Path) -> None:
        """An empty file."""
        self.make(path.parent)
        path.touch()
        self._keep(path.parent)

    def replace(self, path: Path, content: bytes) -> None:
        """Wholly, or not at all."""
        fresh = self._root / "new" / path.name
        try:
            with fresh.open("wb") as file:
                file.write(content)
                file.flush()
                if self._sync:
                    os.fsync(file.fileno())
            fresh.rename(path)
        except OSError:
            fresh.unlink(missing_ok=True)  # a full disk needs its room
            raise
        self._keep(path.parent)

    def unlink(self, path: Path) -> None:
        """Gone, whether or not it was there."""
        path.unlink(missing_ok=True)
        self._keep(path.parent)

    def sweep(self) -> None:
        """Remove what killed processes were writing. Under the lock nobody else is."""
        for path in (self._root / "new").iterdir():
            if path.is_file():
                path.unlink()

    def _keep(self, directory: Path) -> None:
        """Names are in the directory: it has to be on the disk as well as the file."""
        if self._sync:
            opened = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)


def delete(root: Path) -> None:
    """Remove a directory that was a store."""
    shutil.rmtree(root, ignore_errors=True)
