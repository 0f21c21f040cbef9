"""mypy --strict on programs that use gotasks: right use is accepted, wrong use is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def mypy(*files: Path, cache: Path) -> tuple[int, str]:
    """Run mypy as a user does: strict, with no settings of ours."""
    words = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--no-error-summary"]
    words += ["--cache-dir", str(cache), *map(str, files)]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    return ran.returncode, ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.timeout(120)
def test_right_use_is_accepted_and_every_line_of_misuse_is_found(cache: Path) -> None:
    code, output = mypy(ROOT / "examples" / "first.py", HERE / "shop.py", HERE / "misuse.py", cache=cache)
    assert (code, output) == (0, "")


@pytest.mark.timeout(120)
def test_mypy_would_say_so_were_it_otherwise(cache: Path, tmp_path: Path) -> None:
    """The test above can fail: without its ignores each line of misuse.py is an error."""
    lines = (HERE / "misuse.py").read_text().splitlines()
    marked = [number for number, line in enumerate(lines, 1) if "# type: ignore[" in line]
    bare = tmp_path / "bare.py"
    bare.write_text("\n".join(line.partition("  # type: ignore[")[0] for line in lines) + "\n")
    code, output = mypy(bare, cache=cache)
    found = {int(line.split(":")[1]) for line in output.splitlines() if ": error:" in line}
    assert code == 1
    assert found == set(marked)
