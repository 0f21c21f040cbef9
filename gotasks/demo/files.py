"""Files: the demo's input, and their names as text that JSON can carry."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes

from gotasks.errors import ConfigurationError

#: Where the interpreter writes while the demo reads; left out of the package's own files.
_CACHE = "__pycache__"


def to_text(path: str | Path) -> str:
    """`path` as text without surrogates: `%` and bytes that aren't UTF-8 become %XX. `to_path` brings it back."""
    text = os.fsencode(path).decode("utf-8", "surrogateescape").replace("%", "%25")
    return "".join(f"%{ord(each) - 0xDC00:02X}" if "\udc80" <= each <= "\udcff" else each for each in text)


def to_path(text: str) -> Path:
    """The path that `to_text` made `text` of."""
    return Path(os.fsdecode(unquote_to_bytes(text)))


def shown(text: str) -> str:
    """The last part of a path as text, safe to print."""
    name = text.rpartition("/")[2]
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in name)


@dataclass(frozen=True)
class Stamp:
    """What tells whether a file has changed since."""

    size: int
    modified: int  #: nanoseconds

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """That of a file now. Raises OSError."""
        info = path.stat()
        return cls(info.st_size, info.st_mtime_ns)


@dataclass
class Files:
    """The regular files under a path, by their names as text. Symbolic links inside aren't followed."""

    stamps: dict[str, Stamp] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)  #: what couldn't be looked into, as text

    @classmethod
    def under(cls, path: str | None) -> Files:
        """Those under `path`; None: the files of the installed package. Raises ConfigurationError if it has none."""
        found = cls()
        if path is None:
            found._walk(Path(__file__).resolve().parents[1], skip=_CACHE)
            return found
        name = repr(to_text(path))
        try:
            root = Path(path).resolve(strict=True)
            if root.is_dir():
                os.scandir(root).close()
            elif root.is_file():
                with root.open("rb"):
                    found.stamps[to_text(root)] = Stamp.of(root)
                return found
            else:
                raise ConfigurationError(f"{name} is neither a file nor a directory: name one of these")
        except (OSError, RuntimeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise ConfigurationError(f"{name} can't be read ({why}): name a file or a directory") from error
        found._walk(root)
        if not found.stamps:
            raise ConfigurationError(f"there is no file under {name}: name a directory that has some")
        return found

    def _walk(self, root: Path, skip: str | None = None) -> None:
        def failed(error: OSError) -> None:
            self.left_out.append(to_text(str(error.filename)))

        for folder, folders, names in os.walk(root, onerror=failed):
            folders[:] = sorted(each for each in folders if each != skip)
            for name in sorted(names):
                path = Path(folder, name)
                try:
                    info = path.lstat()
                except OSError:
                    self.left_out.append(to_text(path))
                    continue
                if stat.S_ISREG(info.st_mode):
                    self.stamps[to_text(path)] = Stamp(info.st_size, info.st_mtime_ns)
