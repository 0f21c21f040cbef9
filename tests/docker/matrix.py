"""`make test-docker`: the conformance suite on each server of `docker-compose.yml`, and a table of what was seen.

    make test-docker                               # every service, small numbers
    make test-docker ARGS="redis valkey --full"    # these two, the whole suite, which certifies

A service whose image can't be had is in the table too, as not run, with the reason. The exit code is 0 if something was
run and all of it passed, 1 if something failed, and 3 if nothing could be run.
"""

# ruff: noqa: T201 - a command, which prints
from __future__ import annotations

import argparse
import importlib.util
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gotasks.conformance.outcome import Result
from gotasks.conformance.report import Report, verify
from gotasks.conformance.rows.everything import ROWS
from tests import docker_engine
from tests.docker.adapters import SERVICE
from tests.docker.container import LABEL, RUN, Container, DockerError, docker
from tests.docker.services import Service, services

ROOT = Path(__file__).parents[2]

#: Where reports and logs go.
OUT = ROOT / "build" / "test-docker"

#: An image of a database has some hundred megabytes. Seconds.
_PULL = 600

_PASSED, _FAILED, _NOTHING_RAN = 0, 1, 3


@dataclass(frozen=True)
class Line:
    """What was seen of one service."""

    service: str
    image: str
    version: str  #: as the server itself says; empty if none was asked
    verdict: str
    passed: bool | None  #: None: not run


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    known = services()
    parser = argparse.ArgumentParser(
        prog="make test-docker", description="The conformance suite on servers in containers."
    )
    parser.add_argument("services", nargs="*", metavar="SERVICE", help=f"all, or some of {', '.join(known)}")
    parser.add_argument("--full", action="store_true", help="the whole suite, which certifies; else --quick")
    parser.add_argument("--at-a-time", type=int, default=1, metavar="N", help="so many services (1)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="so many rows of each (2)")
    given = parser.parse_args(words)
    if unknown := set(given.services) - known.keys():
        parser.error(f"no service is named {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    chosen = [known[name] for name in dict.fromkeys(given.services or known)]

    OUT.mkdir(parents=True, exist_ok=True)
    os.environ[RUN] = secrets.token_hex(8)  # for Docker Compose, here and in the checks
    options = ["--jobs", str(given.jobs), *([] if given.full else ["--quick"])]
    with ThreadPoolExecutor(max(1, given.at_a_time)) as pool:
        try:
            lines = list(pool.map(lambda each: _line(each, options), chosen))
        except BaseException:  # Ctrl-C and SIGTERM: what runs ends when its server is gone
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            _remove_all(os.environ[RUN])
    print(f"\n{table(lines)}")
    return exit_code(lines)


def exit_code(lines: Iterable[Line]) -> int:
    """What the command ends with."""
    ran = [line.passed for line in lines if line.passed is not None]
    if not ran:
        return _NOTHING_RAN
    return _PASSED if all(ran) else _FAILED


def table(lines: Sequence[Line]) -> str:
    """The matrix, for people, and what is in it in a line at its end."""
    cells = [("service", "image", "version", "verdict")]
    cells += [(each.service, each.image, each.version or "-", each.verdict) for each in lines]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    rows = [
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in cells
    ]
    rows.insert(1, "─" * min(max(map(len, rows)), 110))
    outcomes = [each.passed for each in lines]
    rows.append(
        f"{outcomes.count(True)} passed, {outcomes.count(False)} failed, {outcomes.count(None)} not run"
    )
    return "\n".join(rows)


def verdict(report: Report, code: int, profile: str) -> str:
    """What a check has shown, in words."""
    bad = [row.id for row in report.rows if row.result in (Result.FAIL, Result.WAIVED)]
    if bad:
        return f"FAILED: {', '.join(bad)}"
    if code != 0:
        return f"FAILED: not {profile}: {'; '.join(report.hindrances(profile)[:3])}"
    return f"{'passed, quick' if report.quick else f'certified {profile}'}: {report.counts()}"


def not_run(service: Service, installed: Mapping[str, bool]) -> str | None:
    """Why this service can't be run, or None if it can be tried. Pulls its image where that isn't there."""
    if not docker_engine.engine_answers():
        return "no Docker engine answers"
    if service.kind.server.name == "nats" and not installed["gotasks_nats"]:
        return "gotasks-nats isn't installed: pip install -e contrib/gotasks-nats"
    image = service.image()
    try:
        with suppress(DockerError):
            docker("image", "inspect", image)
            return None
        docker("pull", "--quiet", image, timeout=_PULL)
    except (DockerError, subprocess.TimeoutExpired) as error:
        return f"the image can't be had: {str(error).removeprefix('docker pull: ')}"
    return None


def _line(service: Service, options: Sequence[str]) -> Line:
    began = time.monotonic()
    line = _look(service, options)
    seconds = "" if line.passed is None else f" ({time.monotonic() - began:.0f} s)"
    print(f"{service.name}: {line.verdict}{seconds}", flush=True)
    return line


def _look(service: Service, options: Sequence[str]) -> Line:
    image = service.image()
    installed = {"gotasks_nats": importlib.util.find_spec("gotasks_nats") is not None}
    if (why := not_run(service, installed)) is not None:
        return Line(service.name, image, "", f"not run: {why}", None)
    try:
        with Container(service, service.kind.query) as container:
            version = service.kind.server.answers(container.url)
            return Line(service.name, image, version, *_check(service, container.url, options))
    except (DockerError, TimeoutError) as error:  # its image is there: that it doesn't serve is a failure
        return Line(service.name, image, "", f"FAILED: {error}", passed=False)


def _check(service: Service, url: str, options: Sequence[str]) -> tuple[str, bool]:
    """Run the suite; what it shows, and whether that is what it must."""
    report, log = OUT / f"{service.name}.json", OUT / f"{service.name}.log"
    report.unlink(missing_ok=True)
    profile = service.kind.profile
    words = [sys.executable, "-m", "gotasks", "check", url, "--adapter", service.adapter]
    words += [*options, "--profile", profile, "--report", str(report)]
    with log.open("wb") as output:
        done = subprocess.run(
            words,
            cwd=ROOT,
            env={**os.environ, SERVICE: service.name},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if not report.exists() or not report.stat().st_size:
        return f"FAILED: the suite ended with {done.returncode}; see {log.relative_to(ROOT)}", False
    return verdict(verify(report.read_bytes(), ROWS), done.returncode, profile), done.returncode == 0


def _remove_all(run: str) -> None:
    """Remove the containers of this run that are still there: those of a check that was killed."""
    with suppress(DockerError, OSError):
        left = docker("ps", "-aq", "--filter", f"label={LABEL}={run}").split()
        if left:
            docker("rm", "--force", "--volumes", *left)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
