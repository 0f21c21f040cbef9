"""Container: a server in a container of its own, which may be stopped and killed."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import time
from functools import cache
from typing import TYPE_CHECKING

from gotasks.conformance.server_process import free_port
from tests.docker.services import Service
from tests.docker_engine import COMPOSE_FILE, compose_command

if TYPE_CHECKING:
    from typing_extensions import Self

#: The label of a run's containers, by which it removes what is left of it.
LABEL = "gotasks.run"

#: In the environment: the run.
RUN = "GOTASKS_TEST_RUN"

#: A start, on a busy machine: MySQL's first takes half a minute. Seconds.
_PATIENCE = 120.0

#: Between two questions whether it answers. Seconds.
_PAUSE = 0.05


class DockerError(Exception):
    """Docker refused; says why, in one line."""


class Container:
    """A container of a service of `docker-compose.yml`. It keeps its port and its data until it is closed.

    `query` is that of its URL, with the question mark. Not thread-safe.
    """

    def __init__(self, service: Service, query: str = "") -> None:
        self._service = service
        self._query = query
        self._port = free_port()
        self._id = ""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where it listens, also while it is down."""
        url = self._service.kind.server.docker_url.format(host="127.0.0.1", port=self._port)
        return f"{url}{self._query}"

    def start(self) -> None:
        """Start it, again with what it kept, and return when it answers.

        Raises DockerError if it can't be started, and TimeoutError if it doesn't answer.
        """
        if self._id:
            docker("start", self._id)
        else:
            self._create()
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                self._service.kind.server.answers(self.url)
                return
            except Exception as error:  # of any driver: it isn't there yet
                if docker("inspect", "--format", "{{.State.Running}}", self._id) != "true":
                    said = docker("logs", "--tail", "20", self._id, both=True)
                    raise DockerError(f"{self._service.name} ended: {said}") from None
                if time.monotonic() > end:
                    raise TimeoutError(f"{self._service.name} doesn't answer: {error}") from None
            time.sleep(_PAUSE)

    def stop(self) -> None:
        """Stop it in an orderly way, and wait until it's gone."""
        docker("stop", "--time", "60", self._id)

    def kill(self) -> None:
        """SIGKILL of the server and all its processes. Idempotent."""
        if docker("inspect", "--format", "{{.State.Running}}", self._id) == "true":
            docker("kill", self._id)

    def run(self, *words: str) -> str:
        """Run a program in it; what that says. Raises DockerError if it fails."""
        return docker("exec", self._id, *words)

    def close(self) -> None:
        """Remove it with all that it kept. Idempotent."""
        if self._id:
            docker("rm", "--force", "--volumes", self._id)
            self._id = ""

    def _create(self) -> None:
        # The project is only for this one, so that several may have the same service at the same time.
        project = f"gotasks-{secrets.token_hex(6)}"
        words = [*_compose(), "-f", str(COMPOSE_FILE), "-p", project, "up", "-d", self._service.name]
        own = {"GOTASKS_TEST_PORT": str(self._port), "GOTASKS_TEST_APPENDONLY": "yes"}
        done = subprocess.run(
            words,
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
        self._id = docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={project}")
        if done.returncode != 0:
            raise DockerError(reason(done.stderr))


def docker(*words: str, both: bool = False, timeout: float = _PATIENCE) -> str:
    """What Docker says, on its error output too if `both`. Raises DockerError if it fails."""
    done = subprocess.run(
        ["docker", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if both else subprocess.PIPE,
        text=True,
        check=False,
        timeout=timeout,
    )
    if done.returncode != 0:
        raise DockerError(f"docker {words[0]}: {reason(done.stderr or done.stdout)}")
    return done.stdout.strip()


def reason(said: str) -> str:
    """The last line of what a program said before it failed."""
    *_, last = [line for line in said.splitlines() if line.strip()] or ["it didn't say why"]
    return last.strip().removeprefix("Error response from daemon: ")


@cache
def _compose() -> tuple[str, ...]:
    return tuple(shlex.split(compose_command()))
