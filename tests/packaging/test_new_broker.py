"""From `gotasks new-broker` to a broker that passes core, with the wheel in a clean environment."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import tomli

from tests.packaging.conftest import ENVIRONMENT, ROOT, Installation

HERE = ROOT / "tests" / "packaging"


@pytest.fixture(scope="session")
def made(with_conformance: Installation) -> Installation:
    """The wheel with the conformance extra, and in its directory a skeleton that is installed as its README says."""
    installation = with_conformance
    done = installation.gotasks("new-broker", "toy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cd gotasks-toy\n  pip install -e '.[test]'\n  pytest" in done.stdout
    installation.pip_install("-e", f"{installation.directory}/gotasks-toy[test]")
    return installation


def suite(made: Installation, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the skeleton's tests as its author does."""
    return subprocess.run(
        [str(made.environment / "bin" / "python"), "-m", "pytest", *words],
        cwd=made.directory / "gotasks-toy",
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_its_suite_runs_at_once_and_says_what_to_do(made: Installation) -> None:
    done = suite(made)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "DLV-01 what was enqueued comes out as it was" in done.stdout
    assert "NotImplementedError: purge: remove what waits, return how many" in done.stdout
    assert "1 failed" in done.stdout


def test_it_is_found(made: Installation) -> None:
    (line,) = [each for each in made.gotasks("brokers").stdout.splitlines() if "toy://" in each]

    assert "gotasks-toy 0.1.0" in line
    assert "TIMED_LEASE" in line


def test_nobody_elses_files_are_needed_to_check_it(made: Installation) -> None:
    """It's what a linter and a type checker of the author's would see first."""
    for path in (made.directory / "gotasks-toy").rglob("*.py"):
        compile(path.read_text(), str(path), "exec")
        assert "@" not in path.read_text().replace("@classmethod", "")
    project = tomli.loads((made.directory / "gotasks-toy" / "pyproject.toml").read_text())
    assert project["project"]["name"] == "gotasks-toy"
    assert project["project"]["entry-points"]["gotasks.brokers"] == {"toy": "gotasks_toy:ToyBroker"}


def test_the_skeleton_has_every_method_of_the_contract(made: Installation) -> None:
    code = """
from gotasks.broker import Broker
from gotasks_toy import ToyBroker
missing = Broker.__abstractmethods__ - vars(ToyBroker).keys()
assert not missing, missing
assert not ToyBroker.__abstractmethods__
assert all(vars(ToyBroker)[each].__doc__ for each in Broker.__abstractmethods__ - {"from_url"})
"""
    done = made.python(code)
    assert done.returncode == 0, done.stderr


def test_a_toy_of_under_100_lines_passes_core(made: Installation) -> None:
    package = made.directory / "gotasks-toy" / "gotasks_toy"
    skeleton = {path.name: path.read_text() for path in package.glob("*.py")}
    try:
        own = 0
        for name in ("broker", "adapter"):
            source = (HERE / f"toy_{name}.py").read_text()
            given = {line.strip() for line in skeleton[f"{name}.py"].splitlines()}
            own += sum(
                1 for line in source.splitlines() if line.strip() not in given and not _is_import(line)
            )
            (package / f"{name}.py").write_text(source)
        assert own < 100

        report = made.directory / "toy.json"
        words = ("--quick", "--jobs=8", "--report", str(report))
        done = made.gotasks("check", "toy://127.0.0.1", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        verdict = json.loads(report.read_text())["verdicts"]["core"]
        assert verdict["reasons"] == ["a quick check certifies nothing"]
    finally:
        for name, source in skeleton.items():
            (package / name).write_text(source)


def _is_import(line: str) -> bool:
    return line.startswith(("from ", "import ", "    from "))


def test_the_wheel_was_used(made: Installation) -> None:
    done = made.python("import gotasks; print(gotasks.__file__)")
    assert str(made.environment) in done.stdout
    assert sys.prefix not in done.stdout
