"""`make release-check`: whether what is in the checkout can be released.

It builds sdist and wheel, looks at metadata and contents, installs the wheel with each extra alone into a clean
environment of each Python that is found, runs `smoke.py` there, and builds the docs.
"oldest" are all extras with the oldest versions of what `pyproject.toml` asks for, on the oldest Python. Where a server
answers, by its variable or on its standard port, a task is done on it too, in a place of its own.

    make release-check
    make release-check ARGS="--python 3.12 --extra redis"    # some of it
    make release-check ARGS="--final"                         # as for a release: on every Python that is supported,
                                                              # clean checkout, dated heading
"""

# ruff: noqa: T201 - a command, which prints
from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli

from tests import rabbit_server, redis_server, sql_server
from tests.servers import SERVERS

ROOT = Path(__file__).parents[2]
SMOKE = Path(__file__).parent / "smoke.py"

#: Extras that aren't for users.
_OURS = ("dev", "docs")

#: The column of the oldest versions that are allowed.
OLDEST = "oldest"

#: The servers that are tried: the extra that reaches one → its name, and what gives an empty place on it.
_PLACES = {
    "redis": ("redis", redis_server.namespaced),
    "postgres": ("postgresql", sql_server.prefixed),
    "mariadb": ("mariadb", sql_server.prefixed),
    "mysql": ("mysql", sql_server.prefixed),
    "rabbitmq": ("rabbitmq", rabbit_server.namespaced),
}

#: The longest that any step takes, over a slow network. Seconds.
_PATIENCE = 900


class Unfit(Exception):
    """Something that must not be released; says what."""


@dataclass(frozen=True)
class Built:
    """The distributions, and another wheel that was built from the checkout and not from the sdist."""

    sdist: Path
    wheel: Path
    of_checkout: Path


@dataclass(frozen=True)
class Wheel:
    """What is tried in the environments."""

    path: Path
    required: Sequence[str]  #: what it and its extras ask for
    servers: Mapping[str, str]  #: extra → URL of a server


@dataclass(frozen=True)
class Cell:
    """What came of one environment."""

    python: str
    extra: str
    failure: str  #: empty if all is well


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; 0 if all of it is fit to be released, else 1."""
    pyproject = tomli.loads((ROOT / "pyproject.toml").read_text())
    extras = ["", *(each for each in pyproject["project"]["optional-dependencies"] if each not in _OURS)]
    parser = argparse.ArgumentParser(prog="make release-check")
    parser.add_argument(
        "--python", action="append", metavar="X.Y", help="only these; else all that are found"
    )
    parser.add_argument("--extra", action="append", metavar="NAME", help="only these; else all, and none")
    parser.add_argument(
        "--final",
        action="store_true",
        help="what a release needs, too: every Python and extra, nothing uncommitted, a heading",
    )
    parser.add_argument("--tag", metavar="vX.Y.Z", help="the tag of this release, which must be its version")
    parser.add_argument("--out", type=Path, metavar="DIR", help="put sdist and wheel there, if all is well")
    given = parser.parse_args(words)
    extras.append(OLDEST)
    chosen = [each for each in extras if given.extra is None or (each or "none") in given.extra]

    wanted = supported(pyproject)
    found = {
        version: path for version, path in pythons(wanted).items() if version in (given.python or wanted)
    }
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="gotasks-release-") as directory:
        home = Path(directory)
        built = _step("build", failures, lambda: build(home))
        _step("version", failures, lambda: version_agrees(final=given.final, tag=given.tag))
        cells: list[Cell] = []
        if built is not None:
            _step("metadata", failures, lambda: metadata(built))
            _step("contents", failures, lambda: contents(built, pyproject))
            servers = reached(os.environ)
            print(f"servers   {', '.join(servers) or 'none: what needs one was not done'}")
            cells = environments(Wheel(built.wheel, required(pyproject), servers), found, chosen, home)
        _step("docs", failures, docs)
        if given.final:
            _step("checkout", failures, committed)
        print(f"\n{grid(cells, wanted, found, chosen)}")
        failures += [
            f"Python {each.python}, {each.extra or 'no extra'}: {each.failure}"
            for each in cells
            if each.failure
        ]
        if not cells:
            failures.append("the wheel was installed nowhere")
        if given.final:
            failures += untried(wanted, found, extras, chosen)
        if not failures and built is not None and given.out is not None:
            given.out.mkdir(parents=True, exist_ok=True)
            for path in (built.sdist, built.wheel):
                shutil.copy(path, given.out)
    for each in failures:
        print(f"FAILED: {each}", file=sys.stderr)
    print("not fit for release" if failures else "fit for release")
    return 1 if failures else 0


def supported(pyproject: Mapping[str, Any]) -> list[str]:
    """The Pythons that the classifiers name: "3.10", …"""
    classifiers = pyproject["project"]["classifiers"]
    found = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each) for each in classifiers]
    return [each[1] for each in found if each]


def pythons(versions: Iterable[str]) -> dict[str, Path]:
    """Those of these versions that are on this machine: on PATH or of pyenv, as long as they really run."""
    found: dict[str, Path] = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in versions:
        candidates = [*sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)]
        if (on_path := shutil.which(f"python{version}")) is not None:
            candidates.append(Path(on_path))
        for each in candidates:
            said = subprocess.run(
                [each, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                capture_output=True,
                text=True,
                check=False,
            )
            if said.returncode == 0 and said.stdout.strip() == version:
                found[version] = each
                break
    return found


def untried(
    wanted: Iterable[str], found: Container[str], extras: Iterable[str], chosen: Container[str]
) -> list[str]:
    """What keeps a release from having been tried on every Python, with every extra."""
    return [
        *(
            f"Python {each} isn't on this machine, or wasn't asked for"
            for each in wanted
            if each not in found
        ),
        *(f"{each or 'no extra'} wasn't asked for" for each in extras if each not in chosen),
    ]


def build(home: Path) -> Built:
    """Build the sdist, the wheel from it, and a wheel from the checkout."""
    _run(sys.executable, "-m", "build", "--outdir", str(home / "dist"), str(ROOT))
    _run(sys.executable, "-m", "build", "--wheel", "--outdir", str(home / "checkout"), str(ROOT))
    (sdist,), (wheel,) = (home / "dist").glob("*.tar.gz"), (home / "dist").glob("*.whl")
    (of_checkout,) = (home / "checkout").glob("*.whl")
    return Built(sdist, wheel, of_checkout)


def version_agrees(*, final: bool, tag: str | None = None, root: Path = ROOT) -> str:
    """The version, the same in the package, the changelog and the tag. Raises Unfit."""
    source = (root / "gotasks" / "__init__.py").read_text()
    inside = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if inside is None:
        raise Unfit('gotasks/__init__.py has no line __version__ = "…"')
    if tag is not None and tag != f"v{inside[1]}":
        raise Unfit(f"the tag is {tag}, the version {inside[1]}")
    changelog = (root / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.+)$", changelog, re.MULTILINE)
    top = headings[0] if headings else ""
    if top == "[Unreleased]" and not final:
        return f"{inside[1]}, and changes that are unreleased"
    if not re.fullmatch(rf"\[{re.escape(inside[1])}\] - \d{{4}}-\d\d-\d\d", top):
        raise Unfit(f"CHANGELOG.md begins with {top or 'no heading'}, not with [{inside[1]}] and a date")
    return inside[1]


def committed() -> str:
    """Nothing is uncommitted. Raises Unfit."""
    if said := _run("git", "status", "--porcelain", cwd=ROOT):
        raise Unfit(f"{len(said.splitlines())} files aren't committed")
    return "nothing uncommitted"


def metadata(built: Built) -> str:
    """What twine says, strictly. Raises Unfit."""
    _run(sys.executable, "-m", "twine", "check", "--strict", str(built.sdist), str(built.wheel))
    return "twine check --strict"


def contents(built: Built, pyproject: Mapping[str, Any]) -> str:
    """The wheel holds the packages whole, and nothing else; that of the sdist is the same. Raises Unfit."""
    packages = [ROOT / each for each in pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
    shipped = _files(built.wheel)
    code = {name for name in shipped if ".dist-info/" not in name}
    there = set(itertools.chain.from_iterable(_package(each) for each in packages))
    if code != there:
        raise Unfit(f"only in the wheel: {_some(code - there)}; missing there: {_some(there - code)}")
    needed = [f"{package.name}/py.typed" for package in packages]
    needed += [path.relative_to(ROOT / "backends").as_posix() for path in ROOT.glob("backends/*/lua/*.lua")]
    needed += [name for name in shipped if name.endswith(".dist-info/licenses/LICENSE")] or ["LICENSE"]
    if missing := set(needed) - shipped.keys():
        raise Unfit(f"the wheel lacks {_some(missing)}")
    other = _files(built.of_checkout)
    if changed := {name for name in shipped.keys() | other.keys() if shipped.get(name) != other.get(name)}:
        raise Unfit(f"the wheels of sdist and checkout differ in {_some(changed)}")
    with tarfile.open(built.sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    top = {
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "Makefile",
        "pyproject.toml",
    }
    if missing := top - inside:
        raise Unfit(f"the sdist lacks {_some(missing)}")
    if private := ignored(inside):
        raise Unfit(f"the sdist has {_some(private)}, which git ignores")
    return f"{len(code)} files in the wheel, {len(inside)} in the sdist"


def docs() -> str:
    """They are current, and can be built. Raises Unfit."""
    _run("make", "docs", "ARGS=--check", cwd=ROOT)
    return "make docs ARGS=--check"


def ignored(names: Iterable[str], root: Path = ROOT) -> list[str]:
    """Those of these files that git ignores: of this machine, and nobody else's. None where there is no repository."""
    said = subprocess.run(
        ["git", "check-ignore", "--stdin"],
        cwd=root,
        input="\n".join(sorted(filter(None, names))),
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.splitlines() if said.returncode == 0 else []


def required(pyproject: Mapping[str, Any]) -> list[str]:
    """All that the package and its extras ask for themselves."""
    project = pyproject["project"]
    extras = [each for name, each in project["optional-dependencies"].items() if name not in _OURS]
    return [
        each for each in itertools.chain(project["dependencies"], *extras) if not each.startswith("gotasks[")
    ]


def reached(environ: Mapping[str, str]) -> dict[str, str]:
    """The servers that answer: extra → URL."""
    found = {}
    for extra, (name, _) in _PLACES.items():
        url = environ.get(f"GOTASKS_TEST_{name.upper()}_URL", SERVERS[name].local_url)
        with suppress(Exception):  # of any driver: there is none
            SERVERS[name].answers(url)
            found[extra] = url
    return found


def environments(wheel: Wheel, found: Mapping[str, Path], extras: Sequence[str], home: Path) -> list[Cell]:
    """Try the wheel with each extra alone on each Python."""
    pairs = [
        pair for pair in itertools.product(found, extras) if pair[1] != OLDEST or pair[0] == next(iter(found))
    ]

    def one(pair: tuple[str, str]) -> Cell:
        python, extra = pair
        name = f"{python}-{extra or 'none'}"
        try:
            _try(wheel, found[python], extra, home / name)
        except Unfit as error:
            print(f"{name:<18}FAILED", flush=True)
            return Cell(python, extra, str(error))
        finally:
            shutil.rmtree(home / name, ignore_errors=True)
        print(f"{name:<18}ok", flush=True)
        return Cell(python, extra, "")

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, pairs))


def _try(wheel: Wheel, python: Path, extra: str, environment: Path) -> None:
    uv = [sys.executable, "-m", "uv", "--quiet", "--no-config"]
    _run(*uv, "venv", "--python", str(python), str(environment))
    inside = environment / "bin" / "python"
    name = "all" if extra == OLDEST else extra
    wanted = [f"gotasks{f'[{name}]' if name else ''} @ {wheel.path.as_uri()}"]
    if extra == OLDEST:
        wanted += ["--resolution", "lowest-direct", *wheel.required]
    _run(*uv, "pip", "install", "--python", str(inside), *wanted)
    version = wheel.path.name.split("-")[1]
    with ExitStack() as stack:
        places = {each: stack.enter_context(_PLACES[each][1](url)) for each, url in wheel.servers.items()}
        _run(str(inside), "-I", str(SMOKE), version, name, json.dumps(places), cwd=environment)


def grid(
    cells: Sequence[Cell], wanted: Sequence[str], found: Mapping[str, Path], extras: Sequence[str]
) -> str:
    """A table of Pythons and extras, for people."""
    outcome = {(each.python, each.extra): "FAILED" if each.failure else "ok" for each in cells}
    names = [extra or "none" for extra in extras]
    widths = [max(len(name), 6) for name in names]
    lines = [["Python", *names]]
    lines += [[python, *(outcome.get((python, extra), "-") for extra in extras)] for python in wanted]
    text = [
        "  ".join(
            [f"{row[0]:<6}", *(f"{cell:<{width}}" for cell, width in zip(row[1:], widths, strict=True))]
        ).rstrip()
        for row in lines
    ]
    text += [
        f"not run: Python {each} isn't on this machine, or wasn't asked for"
        for each in wanted
        if each not in found
    ]
    return "\n".join(text)


def _step(name: str, failures: list[str], do: Any) -> Any:
    """Do it, and say what came of it; None, and one more failure, if it is unfit."""
    try:
        result = do()
    except Unfit as error:
        failures.append(f"{name}: {error}")
        print(f"{name:<10}FAILED", flush=True)
        return None
    print(f"{name:<10}{result if isinstance(result, str) else 'ok'}", flush=True)
    return result


def _run(*words: str, cwd: Path | None = None) -> str:
    """Run a program; what it says. Raises Unfit, with the end of that, if it fails."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GOTASKS_", "PYTHON", "VIRTUAL_ENV", "MAKE", "MFLAGS"))
    }
    done = subprocess.run(
        words,
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE,
    )
    if done.returncode != 0:
        said = f"{done.stdout}\n{done.stderr}".strip()[-1000:]
        raise Unfit(f"{Path(words[0]).name} {' '.join(words[1:4])} ended with {done.returncode}: {said}")
    return done.stdout.strip()


def _files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _package(directory: Path) -> Iterator[str]:
    for path in directory.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(directory.parent).as_posix()


def _some(names: Iterable[str]) -> str:
    """The first of them, in words."""
    listed = sorted(names)
    return f"{', '.join(listed[:5])}{f' and {len(listed) - 5} more' if len(listed) > 5 else ''}" or "nothing"


if __name__ == "__main__":
    sys.exit(main())
