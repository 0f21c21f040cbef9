"""`make release-check`: what it refuses. That it passes is seen by running it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import tomli

from gotasks import __version__
from tests.packaging import release
from tests.packaging.conftest import ROOT, Built
from tests.packaging.release import Cell, Unfit, contents, grid, supported, version_agrees


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    content: dict[str, Any] = tomli.loads((ROOT / "pyproject.toml").read_text())
    return content


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout of version 1.2.3, as far as versions go."""
    (tmp_path / "gotasks").mkdir()
    (tmp_path / "gotasks" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [1.2.3] - 2030-01-31\n\n## [1.2.2] - 2029-01-31\n"
    )
    return tmp_path


def test_the_version_is_the_same_everywhere(tree: Path) -> None:
    assert version_agrees(final=True, tag="v1.2.3", root=tree) == "1.2.3"
    with pytest.raises(Unfit, match=r"the tag is v1\.2\.4, the version 1\.2\.3"):
        version_agrees(final=True, tag="v1.2.4", root=tree)


def test_a_release_has_a_dated_heading(tree: Path) -> None:
    changelog = tree / "CHANGELOG.md"
    changelog.write_text("# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2030-01-31\n")

    assert version_agrees(final=False, root=tree) == "1.2.3, and changes that are unreleased"
    with pytest.raises(Unfit, match=r"begins with \[Unreleased\], not with \[1\.2\.3\] and a date"):
        version_agrees(final=True, root=tree)

    for heading in ("## [1.2.4] - 2030-01-31", "## [1.2.3]", "## 1.2.3 - 2030-01-31"):
        changelog.write_text(f"{heading}\n")
        with pytest.raises(Unfit, match="not with"):
            version_agrees(final=False, root=tree)


def test_the_version_of_this_checkout_agrees() -> None:
    assert version_agrees(final=False).startswith(__version__)


def test_the_wheel_is_fit(built: Built, pyproject: dict[str, Any]) -> None:
    said = contents(release.Built(built.sdist, built.wheel, built.wheel_of_sdist), pyproject)

    assert re.fullmatch(r"\d+ files in the wheel, \d+ in the sdist", said)


def test_one_file_more_is_refused(built: Built, pyproject: dict[str, Any], tmp_path: Path) -> None:
    wheel = Path(shutil.copy(built.wheel, tmp_path))
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("gotasks/notes.txt", "")

    with pytest.raises(Unfit, match=r"only in the wheel: gotasks/notes\.txt; missing there: nothing"):
        contents(release.Built(built.sdist, wheel, built.wheel), pyproject)


def test_wheels_that_differ_are_refused(built: Built, pyproject: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / built.wheel.name
    with zipfile.ZipFile(built.wheel) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            target.writestr(name, b"" if name == "gotasks/app.py" else source.read(name))

    with pytest.raises(Unfit, match=r"the wheels of sdist and checkout differ in gotasks/app\.py"):
        contents(release.Built(built.sdist, built.wheel, other), pyproject)


def test_what_git_ignores_is_private(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text(".env\n")

    assert release.ignored(["README.md", "tests/.env", ""], tmp_path) == ["tests/.env"]
    assert release.ignored(["README.md"], tmp_path) == []


def test_the_oldest_versions_are_those_of_users(pyproject: dict[str, Any]) -> None:
    asked = release.required(pyproject)

    assert {"click>=8.1", "pika>=1.3.2,<2"} <= set(asked)
    assert not [each for each in asked if each.startswith(("gotasks", "mypy", "ruff"))]


def test_servers_that_answer_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = {
        f"GOTASKS_TEST_{name.upper()}_URL": "redis://127.0.0.1:1/0" for name, _ in release._PLACES.values()
    }

    assert release.reached(nobody) == {}


def test_pythons_are_found_if_they_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    (tmp_path / f"python{here}").symlink_to(sys.executable)
    (tmp_path / "python3.99").write_text("#!/bin/sh\nexit 127\n")  # as pyenv's shims do
    (tmp_path / "python3.99").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))

    assert release.pythons([here, "3.98", "3.99"]) == {here: tmp_path / f"python{here}"}


@pytest.mark.parametrize("final", [False, True])
def test_a_release_is_tried_on_every_python(
    final: bool,
    built: Built,
    pyproject: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    *others, missing = supported(pyproject)
    tried = [Cell(python, "", "") for python in others]
    fit = {
        "build": lambda _home: release.Built(built.sdist, built.wheel, built.wheel_of_sdist),
        "pythons": lambda _versions: {python: Path("python") for python in others},
        "environments": lambda *_: tried,
        "reached": lambda _environ: {},
        "version_agrees": lambda **_: "1.2.3",
        **dict.fromkeys(("docs", "committed"), lambda: "ok"),
        **dict.fromkeys(("metadata", "contents"), lambda *_: "ok"),
    }
    for name, stand_in in fit.items():
        monkeypatch.setattr(release, name, stand_in)

    code = release.main(["--final"] if final else [])

    said = capsys.readouterr()
    assert f"not run: Python {missing} isn't on this machine, or wasn't asked for" in said.out
    if final:
        assert said.err == f"FAILED: Python {missing} isn't on this machine, or wasn't asked for\n"
        assert said.out.endswith("\nnot fit for release\n")
    else:
        assert said.err == ""
        assert said.out.endswith("\nfit for release\n")
    assert code == int(final)


def test_a_release_is_tried_with_every_extra() -> None:
    assert release.untried(["3.10"], ["3.10"], ["", "redis", "oldest"], ["redis"]) == [
        "no extra wasn't asked for",
        "oldest wasn't asked for",
    ]


def test_the_grid_names_what_was_not_run() -> None:
    cells = [Cell("3.10", "", ""), Cell("3.10", "redis", "no driver")]

    assert grid(cells, ["3.10", "3.14"], {"3.10": Path("python")}, ["", "redis"]).splitlines() == [
        "Python  none    redis",
        "3.10    ok      FAILED",
        "3.14    -       -",
        "not run: Python 3.14 isn't on this machine, or wasn't asked for",
    ]


def test_workflows_have_every_python_that_is_supported(pyproject: dict[str, Any]) -> None:
    versions = supported(pyproject)
    workflows = ROOT / ".github" / "workflows"
    ci, publishing = (workflows / "ci.yml").read_text(), (workflows / "release.yml").read_text()

    assert f"python: {versions}".replace("'", '"') in ci
    listed = "python-version: |\n" + "".join(f"            {version}\n" for version in versions)
    assert listed in ci
    assert listed in publishing
    assert "run: .ci/run" in ci
    assert "make release-check" in ci
    assert "--final --tag $GITHUB_REF_NAME" in publishing
