"""PrivateRabbit: a RabbitMQ server of one's own, which may be stopped, killed and filled. For tests."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gotasks.conformance.server_process import ServerProcess, free_port

#: Where packages put the programs themselves. On PATH there may be wrappers that run as another user.
_PLACES = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/opt/homebrew/sbin", "/usr/local/sbin")

#: The longest that a start, a stop or a command takes, on a busy machine. Seconds.
_PATIENCE = 90.0


#: What lets a node into a cluster.
_COOKIE = ".erlang.cookie"

#: Each quorum queue wants some files, and with the usual 1024 a server with 300 of them lets no client in any more.
_AS_MANY_FILES = 'ulimit -n "$(ulimit -H -n)"; exec "$0"'


class PrivateRabbit:
    """A node of its own: its own data, ports, cookie and port mapper (epmd). It keeps its ports and its directory.

    `settings` are lines of rabbitmq.conf: `PrivateRabbit(directory, {"consumer_timeout": "60000"})`; `advanced` is the
    text of advanced.config, and `query` that of its URL. `management`: with the plugin of that name, at
    `management_url`; it costs memory, and a moment at the start. `beside`: a running one, of whose cluster it will be.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str] | None = None,
        *,
        advanced: str = "[].",
        query: str = "",
        management: bool = False,
        beside: PrivateRabbit | None = None,
    ) -> None:
        self.directory = directory
        self.settings = {
            # What the machine has is for all that run on it: no alarm but those that a test raises.
            "vm_memory_high_watermark.absolute": "4GB",
            "disk_free_limit.absolute": "1MB",
            **(settings or {}),
        }
        self.port = 0
        self._management = management
        self._management_port = 0
        self._beside = beside
        self._advanced = advanced
        self._query = query
        #: Its name.
        self.node = f"gotasks{secrets.token_hex(4)}@localhost"
        self._process = ServerProcess("RabbitMQ server", directory / "server.log")
        self._mapper: subprocess.Popen[bytes] | None = None
        self._env: dict[str, str] = {}

    @staticmethod
    def program(name: str = "rabbitmq-server") -> str | None:
        """The path of a program of the server, or None if it isn't installed."""
        return shutil.which(name, path=os.pathsep.join([*_PLACES, os.environ.get("PATH", "")]))

    @property
    def url(self) -> str:
        """Where it listens, also while it is down."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F{'?' if self._query else ''}{self._query}"

    @property
    def management_url(self) -> str:
        """Where its management plugin listens."""
        return f"http://guest:guest@127.0.0.1:{self._management_port}"

    @property
    def mapper_port(self) -> int:
        """Where its port mapper listens."""
        return int(self._env["ERL_EPMD_PORT"])

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._process.pid

    def start(self, *, timeout: float = _PATIENCE) -> PrivateRabbit:
        """Start it and return it once it accepts clients."""
        program = self.program()
        if program is None:
            raise FileNotFoundError("rabbitmq-server isn't installed")
        self._process.must_not_run()
        if not self.port:
            self._prepare()
        mapper = self.program("epmd")
        if self._beside is None and self._mapper is None and mapper is not None:
            # Else the server starts one itself, which outlives it.
            self._mapper = subprocess.Popen(  # noqa: S603 - the program of this name
                [mapper],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            # On a busy machine the server would be there first, and start one all the same.
            deadline = time.monotonic() + timeout
            while not _listens(self.mapper_port) and time.monotonic() < deadline:
                time.sleep(0.01)
        try:
            words = ["/bin/sh", "-c", _AS_MANY_FILES, program]
            self._process.start(words, self._answers, timeout=timeout, env=self._env)
        except BaseException:
            self.close()
            raise
        return self

    def stop(self, *, timeout: float = _PATIENCE) -> None:
        """Stop it in an orderly way (SIGTERM) and wait until it's gone. Does nothing if it isn't running."""
        self._process.stop(timeout=timeout)

    def kill(self) -> None:
        """Kill it (SIGKILL) and wait until it's gone. Does nothing if it isn't running."""
        self._process.kill()

    def restart(self) -> None:
        """Stop it and start it again on the same port, with the data that it kept."""
        self.stop()
        self.start()

    def ctl(self, *words: str) -> str:
        """Run rabbitmqctl on it; what it says."""
        program = self.program("rabbitmqctl")
        if program is None:
            raise FileNotFoundError("rabbitmqctl isn't installed")
        done = subprocess.run(  # noqa: S603 - the program of this name, and words of the suite
            [program, "--quiet", *words],
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {words[0]}: {(done.stderr or done.stdout).decode()[-500:]}")
        return done.stdout.decode()

    def eval(self, expression: str) -> str:
        """Have it evaluate an Erlang expression; what that gives, as Erlang writes it.

        By `erl_call`, where that is installed and gets through: rabbitmqctl starts a node of its own each time.
        """
        program = self.program("erl_call")
        if program is not None:
            done = subprocess.run(  # noqa: S603 - the program of this name, and words of the suite
                [program, "-sname", self.node, "-e"],
                env=self._env,
                input=f"{expression}.\n".encode(),
                capture_output=True,
                timeout=_PATIENCE,
                check=False,
            )
            said = done.stdout.decode().strip()
            if said.startswith("{ok, "):
                return said[len("{ok, ") : -1]
        return self.ctl("eval", f"{expression}.").strip()

    def close(self) -> None:
        """Kill it, and its port mapper. Idempotent."""
        self.kill()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()
            self._mapper = None

    @contextmanager
    def alarm(self, kind: str = "memory") -> Iterator[None]:
        """Within the block its alarm is on: for "memory" or "disk"."""
        change, raising, clearing = {
            "memory": (
                "vm_memory_monitor:set_vm_memory_high_watermark({{absolute, {}}})",
                '"1MB"',
                f'"{self.settings["vm_memory_high_watermark.absolute"]}"',
            ),
            "disk": ("rabbit_disk_monitor:set_disk_free_limit({})", '"1000000GB"', '"1MB"'),
        }[kind]
        self.eval(change.format(raising))
        try:
            self._wait_for_alarm(raised=True)
            yield
        finally:
            self.eval(change.format(clearing))
            self._wait_for_alarm(raised=False)

    def _wait_for_alarm(self, *, raised: bool) -> None:
        deadline = time.monotonic() + _PATIENCE
        while (self.eval("rabbit_alarm:get_alarms()") not in ("[]", "")) is not raised:
            if time.monotonic() > deadline:
                raise RuntimeError(f"its alarm isn't {'on' if raised else 'off'} yet")
            time.sleep(0.02)

    def _prepare(self) -> None:
        """Ports, settings and environment, once."""
        self.port = free_port()
        home = self.directory
        lines = [f"listeners.tcp.1 = 127.0.0.1:{self.port}", *map(" = ".join, self.settings.items())]
        if self._beside is not None:
            nodes = enumerate((self._beside.node, self.node), start=1)
            lines += [f"cluster_formation.classic_config.nodes.{number} = {node}" for number, node in nodes]
            shutil.copy(self._beside.directory / _COOKIE, home)
        if self._management:
            self._management_port = free_port()
            lines += ["management.tcp.ip = 127.0.0.1", f"management.tcp.port = {self._management_port}"]
        (home / "rabbitmq.conf").write_text("\n".join([*lines, ""]))
        (home / "advanced.config").write_text(f"{self._advanced}\n")
        (home / "enabled_plugins").write_text("[rabbitmq_management].\n" if self._management else "[].\n")
        (home / "no-env.conf").touch()  # else the machine's own is read
        self._env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(home),  # the cookie is there
            "ERL_EPMD_PORT": str(free_port() if self._beside is None else self._beside.mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_FLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONF_ENV_FILE": str(home / "no-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RUNNING_UNDER_SYSTEMD": "true",  # no shell stays between us and the server
        }

    def _answers(self) -> bool:
        """Whether it speaks AMQP: a wrong greeting is answered with the right one. And the plugin is there."""
        try:
            if self._management:
                socket.create_connection(("127.0.0.1", self._management_port), timeout=1).close()
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"HTTP\x00\x00\x00\x00")
                return connection.recv(4) == b"AMQP"
        except OSError:
            return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
