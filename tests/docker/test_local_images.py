"""`local-images.sh` makes no image under a false name. Docker and Debian are programs of the test's own here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docker.services import services

SCRIPT = Path(__file__).parent / "local-images.sh"

#: A Docker that has the base, writes down what it is asked, and in whose containers $VERSION was installed.
DOCKER = """#!/bin/sh
echo "$*" >>"$ASKED"
case "$1 $3" in
    create*) echo container ;;
    'cp -') tar -C "$HERE" -cf - version ;;
esac
"""


def stand_ins() -> dict[str, tuple[str, str]]:
    """The table of the script: service → version line and name of the image."""
    (text,) = re.findall(r"<<'END'\n(.*?)\nEND\n", SCRIPT.read_text(), re.DOTALL)
    rows = [line.split() for line in text.splitlines()]
    return {service: (line, name) for service, line, name, _ in rows}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with the script, and with programs that stand in for others."""
    for name in ("local-images.sh", "local-entrypoint.sh"):
        shutil.copy(SCRIPT.parent / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for name, text in {"docker": DOCKER, "debootstrap": "#!/bin/sh\n"}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def make(here: Path, version: str, *words: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run it where Debian has this version; the second is all that Docker was asked."""
    (here / "version").write_text(f"{version}\n")
    asked = here / "asked"
    environ = {
        **os.environ,
        "PATH": f"{here}/bin{os.pathsep}{os.environ['PATH']}",
        "HERE": str(here),
        "ASKED": str(asked),
    }
    done = subprocess.run(
        [here / "local-images.sh", *words],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return done, asked.read_text() if asked.exists() else ""


def test_a_stand_in_is_of_the_line_that_the_service_has() -> None:
    public = services()

    for service, (line, name) in stand_ins().items():
        product, _, tag = public[service].default.partition(":")
        assert product == name
        assert tag == line or tag.startswith(f"{line}-")


def test_the_tag_is_the_version_that_is_in_it(here: Path) -> None:
    done, asked = make(here, "5:7.0.15-1~deb12u7", "redis")

    assert done.returncode == 0, done.stderr
    assert (here / ".env").read_text() == "GOTASKS_TEST_REDIS_IMAGE=gotasks-local/redis:7.0.15\n"
    assert re.search(r"^commit .* container gotasks-local/redis:7\.0\.15$", asked, re.MULTILINE)


def test_another_line_is_not_built(here: Path) -> None:
    done, asked = make(here, "5:8.0.2-1", "redis")

    assert done.returncode == 0, done.stderr
    assert "redis wants redis 7.0, Debian has 8.0.2: not built" in done.stderr
    assert (here / ".env").read_text() == ""
    assert "commit" not in asked
    assert "rm container" in asked


def test_the_line_is_compared_by_whole_numbers(here: Path) -> None:
    done, asked = make(here, "5:7.01.2-1", "redis")

    assert "not built" in done.stderr
    assert "commit" not in asked


def test_there_is_no_stand_in_for_what_debian_lacks(here: Path) -> None:
    done, asked = make(here, "1", "valkey")

    assert done.returncode == 2
    assert "there is no stand-in for valkey" in done.stderr
    assert asked == ""
