"""Venvs: a virtual environment for each set of packages, made on first use and kept."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.catalogue import CHECKOUT
from benchmarks.protocol import ROOT


class Venvs:
    """Virtual environments under one folder, of the Python that runs this. Not for several threads."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._tell = tell
        self._found: dict[tuple[str, ...], Path] = {}

    def python(self, packages: Sequence[str]) -> Path:
        """The interpreter of a venv with these requirements; CHECKOUT is this checkout with all its extras.

        Looked at once, so nothing is installed in the middle of a run. Raises RuntimeError with pip's words if they
        can't be installed.
        """
        wanted = tuple(packages)
        if wanted not in self._found:
            self._found[wanted] = self._make(wanted)
        return self._found[wanted]

    def _make(self, packages: tuple[str, ...]) -> Path:
        identity = json.dumps([*packages, platform.python_version(), sys.executable, str(ROOT)])
        name = packages[0].partition("==")[0].partition("[")[0]
        venv = self._folder / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"
        python, ready = venv / "bin" / "python", venv / "ready"
        # An editable installation follows the code, but not what pyproject.toml says.
        contents = (ROOT / "pyproject.toml").read_text() if CHECKOUT in packages else identity
        if not ready.exists() or ready.read_text() != contents:
            self._tell(f"making {venv}: {' '.join(packages)}")
            shutil.rmtree(venv, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(venv)])
            pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
            _run([*pip, *(word for each in packages for word in _requirement(each))])
            ready.write_text(contents)
        return python

    def versions(self, packages: Sequence[str]) -> list[str]:
        """All that is installed in that venv, as `pip freeze` says it, without the checkout."""
        done = _run([str(self.python(packages)), "-m", "pip", "freeze", "--exclude-editable"])
        return done.splitlines()


def _requirement(package: str) -> list[str]:
    return ["--editable", f"{ROOT}[all]"] if package == CHECKOUT else [package]


def _run(words: list[str]) -> str:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} failed:\n{done.stderr[-4000:]}")
    return done.stdout
