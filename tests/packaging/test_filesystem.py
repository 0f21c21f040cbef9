"""A stranger's plug-in: both wheels in a clean environment, found by its entry point, certified there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import ENVIRONMENT, ROOT, Installation, build


@pytest.fixture(scope="session")
def certified(with_conformance: Installation, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Both wheels in one environment, with the conformance extra."""
    source = ROOT / "contrib" / "gotasks-filesystem"
    (wheel,) = build(source, tmp_path_factory.mktemp("plug-in"), "--wheel")
    with_conformance.pip_install(str(wheel))
    return with_conformance


def test_it_is_found(certified: Installation) -> None:
    (line,) = [each for each in certified.gotasks("brokers").stdout.splitlines() if "filesystem://" in each]

    assert "gotasks-filesystem 0.1.0" in line
    assert "ATOMIC_MOVE" in line


def test_it_passes_the_suite(certified: Installation, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = certified.gotasks(
        "check",
        f"filesystem://{tmp_path}/tasks",
        "--quick",
        "--profile=full",
        "--jobs=6",
        "--report",
        str(report),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["distribution"] == "gotasks-filesystem"
    assert found["broker"] == "gotasks_filesystem.broker:FilesystemBroker"
    assert certified.gotasks("check", "--verify", str(report)).returncode == 0


def test_it_imports_only_what_is_public() -> None:
    sources = (ROOT / "contrib" / "gotasks-filesystem" / "gotasks_filesystem").glob("*.py")
    lines = [line for path in sources for line in path.read_text().splitlines()]
    imported = {line.split()[1] for line in lines if line.startswith(("from gotasks.", "import gotasks"))}

    assert imported == {"gotasks.broker", "gotasks.errors", "gotasks.conformance"}


def test_its_own_tests_pass(certified: Installation) -> None:
    done = subprocess.run(
        [str(certified.environment / "bin" / "python"), "-m", "pytest", "-q", "-k", "not TestConformance"],
        cwd=ROOT / "contrib" / "gotasks-filesystem",
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 0, done.stdout + done.stderr
