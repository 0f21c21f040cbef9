"""Processes of this machine, as Linux tells of them: their descendants, memory and CPU time, who listens on a port."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

_LISTENS = "0A"


def measurable() -> bool:
    """Whether memory and CPU time of other processes can be read here."""
    return sys.platform == "linux"


def tree(pids: Collection[int]) -> set[int]:
    """These processes and their descendants."""
    parents = {pid: int(fields[1]) for pid in _pids() if (fields := _stat(pid))}
    found = set(pids)
    while new := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= new
    return found


def memory(pid: int, field: str) -> float:
    """MiB, by a name in /proc/PID/status such as VmRSS; 0 of a process that is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0]) / 1024
    return 0.0


def cpu(pid: int) -> float:
    """Seconds, in user and kernel mode, with those of children that have ended; 0 of a process that is gone."""
    return sum(map(int, _stat(pid)[11:15])) / os.sysconf("SC_CLK_TCK")


def listeners(port: int) -> set[int]:
    """Who listens on this TCP port here, as far as this user may see it."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    found = set()
    for pid in _pids() if sockets else ():
        with contextlib.suppress(OSError):  # another user's, or gone
            if any(_leads(file) in sockets for file in Path(f"/proc/{pid}/fd").iterdir()):
                found.add(pid)
    return found


def _pids() -> Iterator[int]:
    return (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal())


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; the second, a name, may hold anything. None left: []."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _inodes(port: int) -> Iterator[str]:
    """Of the sockets that listen on it."""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _leads(file: Path) -> str:
    with contextlib.suppress(OSError):  # closed meanwhile
        return str(file.readlink())
    return ""
