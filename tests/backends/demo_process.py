"""`gotasks demo` as a process of its own, with worker processes that it starts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def make_tree(root: Path) -> Path:
    """A directory of files for the demo."""
    root.mkdir()
    for number in range(60):
        (root / os.fsdecode(b"file \xff %d" % number)).write_text(f"{number} words\n" * number)
    return root


class Demo:
    """The process. `folder`: its working folder; `scratch`: where its temporary files are, and nobody else's."""

    def __init__(self, tree: Path, *options: str, folder: Path, scratch: Path, **env: str) -> None:
        scratch.mkdir()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GOTASKS_")}
        self.scratch = scratch
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gotasks", "demo", str(tree), *options],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**inherited, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1", **env},
        )

    def ends_well(self) -> tuple[str, str]:
        """What it has said on stdout and stderr, once it has ended with 0."""
        stdout, stderr = self.process.communicate()
        assert self.process.returncode == 0, stdout + stderr
        self.leaves_no_scratch()
        return stdout, stderr

    def interrupted(self, meanwhile: Callable[[], object] = lambda: None) -> str:
        """Ctrl-C right after a worker was killed, so that a dead worker's tasks have to be cleaned up as well.

        Calls `meanwhile` before that. Returns what was said on stdout until the end; no worker is left then.
        """
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        said = ""
        with self.process.stdout as output, self.process.stderr:
            for line in output:
                said += line
                if line.startswith("killed"):
                    break
            meanwhile()
            self.process.send_signal(signal.SIGINT)
            rest = output.read()
        assert self.process.wait() == 130, said + rest
        assert "stopped" in rest
        workers_are_gone(said)
        self.leaves_no_scratch()
        return said + rest

    def leaves_no_scratch(self) -> None:
        assert list(self.scratch.iterdir()) == []


def held_by_the_killed_one(said: str) -> int:
    """How many tasks the worker held that was killed."""
    killed = re.search(r"^killed worker \d+ \(SIGKILL\) while it held (\d+) tasks?;", said, re.MULTILINE)
    assert killed is not None, said
    return int(killed[1])


def workers_are_gone(said: str) -> None:
    """Neither the worker that was killed lives, nor the one that was started instead."""
    pids = re.findall(r"worker (\d+)", said)
    assert len(pids) >= 2, said
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
