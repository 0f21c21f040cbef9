"""Servers in containers, by pytest-docker: one service of `docker/docker-compose.yml` at a time."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from tests.servers import Server

COMPOSE_FILE = Path(__file__).parent / "docker" / "docker-compose.yml"

#: Seconds for an image to arrive and start. Less than the limit of a test, whose set-up this is.
PATIENCE = 35


class NoEngine(Exception):
    """No Docker engine answers."""


class NoContainer(Exception):
    """An engine answers, but the server can't be had as a container; says why."""


def start(server: Server, request: pytest.FixtureRequest) -> str:
    """Start the container of this server and return its URL once it answers. Raises NoEngine or NoContainer.

    pytest-docker removes it at the end of the session.
    """
    if not engine_answers():
        raise NoEngine("no Docker engine answers")
    command: str = request.getfixturevalue("docker_compose_command")
    if not _succeeds(f"{command} version"):
        raise NoContainer("Docker Compose isn't installed")
    services = request.getfixturevalue("docker_services")
    project: str = request.getfixturevalue("docker_compose_project_name")
    words = [*shlex.split(command), "-f", str(COMPOSE_FILE), "-p", project, "up", "-d", server.name]
    try:
        subprocess.run(words, check=True, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        pull = f"{command} -f tests/docker/docker-compose.yml pull {server.name}"
        raise NoContainer(f"it wasn't up within {PATIENCE} s; pull the image first: {pull}") from None
    except subprocess.CalledProcessError as error:
        *_, reason = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        raise NoContainer(f"it can't be started: {reason}") from None
    url = server.docker_url.format(
        host=request.getfixturevalue("docker_ip"), port=services.port_for(server.name, server.port)
    )

    last_error = ""

    def ready() -> bool:
        nonlocal last_error
        try:
            server.answers(url)
        except Exception as error:
            last_error = str(error)
            return False
        return True

    try:
        services.wait_until_responsive(ready, timeout=PATIENCE / 2, pause=0.1)
    except Exception:  # pytest-docker raises nothing more special
        raise NoContainer(f"it was started but can't be used: {last_error}") from None
    return url


def engine_answers() -> bool:
    """Whether a Docker engine answers."""
    return _succeeds("docker info --format {{.ServerVersion}}")


def compose_command() -> str:
    """Return the command of Docker Compose: the plug-in of `docker`, or the program of version 1."""
    return "docker compose" if _succeeds("docker compose version") else "docker-compose"


def _succeeds(command: str) -> bool:
    try:
        return (
            subprocess.run(shlex.split(command), capture_output=True, timeout=10, check=False).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
