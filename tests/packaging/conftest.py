"""One build of the distributions for all tests here, and clean environments in which a wheel is installed."""

from __future__ import annotations

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
    if not name.startswith(("GOTASKS_", "PYTHON", "VIRTUAL_ENV"))
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

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            cwd=self.directory,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(600))  # the first builds and installs, over the network


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build wheel and sdist from the checkout, and another wheel from the sdist."""
    here, unpacked, again = (tmp_path_factory.mktemp(name) for name in ("dist", "unpacked", "again"))
    _build("--sdist", "--wheel", "--outdir", str(here), str(ROOT))
    (sdist,) = here.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    _build("--wheel", "--outdir", str(again), str(source))
    (wheel,) = here.glob("*.whl")
    (wheel_of_sdist,) = again.glob("*.whl")
    return Built(wheel, sdist, wheel_of_sdist)


@pytest.fixture(scope="session")
def install(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Installation]:
    """Install the wheel with some extras into a new environment: `install("[redis]")`."""

    def install(extras: str) -> Installation:
        environment = tmp_path_factory.mktemp("environment")
        venv.create(environment, with_pip=True)
        _checked(
            str(environment / "bin" / "python"),
            *("-m", "pip", "--disable-pip-version-check", "--quiet", "install"),
            f"gotasks{extras} @ {built.wheel.as_uri()}",
        )
        return Installation(environment, tmp_path_factory.mktemp("elsewhere"))

    return install


@pytest.fixture(scope="session")
def with_redis(install: Callable[[str], Installation]) -> Installation:
    """The wheel with the redis extra."""
    return install("[redis]")


@pytest.fixture(scope="session")
def bare(install: Callable[[str], Installation]) -> Installation:
    """The wheel without any extra."""
    return install("")


def _build(*arguments: str) -> None:
    _checked(sys.executable, "-m", "build", *arguments)


def _checked(*words: str) -> None:
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        pytest.fail(
            f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}", pytrace=False
        )
