"""One build of the distributions for all tests here, and clean environments in which a wheel is installed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tarfile
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: What the programs under test see: no checkout on the path, no settings of whoever runs the tests.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("GOTASKS_", "PYTHON", "PYTEST_", "VIRTUAL_ENV"))
}


@dataclass(frozen=True)
class Built:
    """The distributions, as files."""

    wheel: Path
    sdist: Path
    wheel_of_sdist: Path


@dataclass(frozen=True)
class Installation:
    """A virtual environment with the wheel in it, and a directory that is far from the checkout."""

    environment: Path
    directory: Path

    def gotasks(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command as a user does."""
        return self._run(str(self.environment / "bin" / "gotasks"), *arguments)

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run a program that sees nothing but the environment."""
        return self._run(str(self.environment / "bin" / "python"), "-I", "-c", code)

    def pip_install(self, *words: str) -> None:
        """Install into the environment. By this one's pip, for that costs less than to make one there."""
        pip = (sys.executable, "-m", "pip", "--python", str(self.environment), "--disable-pip-version-check")
        checked(*pip, "--quiet", "install", "--no-compile", *words)

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            cwd=self.directory,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(600))  # the first builds and installs, over the network


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Wheel and sdist of the checkout, and another wheel from the sdist. Built once for all processes of the tests."""
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    base = tmp_path_factory.getbasetemp()
    home = (base if alone else base.parent) / "built"
    home.mkdir(exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "again").exists():
            (sdist,) = build(ROOT, home / "dist", "--sdist", "--wheel", suffix=".tar.gz")
            with tarfile.open(sdist) as archive:
                archive.extractall(home / "unpacked", filter="data")
            (source,) = (home / "unpacked").iterdir()
            build(source, home / "again", "--wheel")
    (sdist,) = (home / "dist").glob("*.tar.gz")
    (wheel,) = (home / "dist").glob("*.whl")
    (wheel_of_sdist,) = (home / "again").glob("*.whl")
    return Built(wheel, sdist, wheel_of_sdist)


@pytest.fixture(scope="session")
def install(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Installation]:
    """Install the wheel with some extras into a new environment: `install("[redis]")`."""

    def install(extras: str) -> Installation:
        environment = tmp_path_factory.mktemp("environment")
        venv.create(environment)
        installation = Installation(environment, tmp_path_factory.mktemp("elsewhere"))
        installation.pip_install(f"gotasks{extras} @ {built.wheel.as_uri()}")
        return installation

    return install


@pytest.fixture(scope="session")
def with_redis(install: Callable[[str], Installation]) -> Installation:
    """The wheel with the redis extra."""
    return install("[redis]")


@pytest.fixture(scope="session")
def with_sql(install: Callable[[str], Installation]) -> Installation:
    """The wheel with the sql extra: SQLAlchemy, and the driver that Python has."""
    return install("[sql]")


@pytest.fixture(scope="session")
def with_conformance(install: Callable[[str], Installation]) -> Installation:
    """The wheel with the conformance extra; plug-ins may be installed beside it."""
    return install("[conformance]")


@pytest.fixture(scope="session")
def bare(install: Callable[[str], Installation]) -> Installation:
    """The wheel without any extra."""
    return install("")


def build(source: Path, out: Path, *words: str, suffix: str = ".whl") -> list[Path]:
    """Build what the words say from a source tree; the files with that suffix. The backend is this environment's."""
    checked(sys.executable, "-m", "build", "--no-isolation", *words, "--outdir", str(out), str(source))
    return list(out.glob(f"*{suffix}"))


def checked(*words: str) -> None:
    """Run a program to its end; the test fails if it does."""
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        pytest.fail(
            f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}", pytrace=False
        )
