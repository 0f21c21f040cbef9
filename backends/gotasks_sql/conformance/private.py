"""Private servers: of the suite's own, to be stopped and killed. Each keeps its port and its data."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from gotasks.conformance.adapter import MissingHook
from gotasks.conformance.server_process import ServerProcess, free_port

if TYPE_CHECKING:
    from typing_extensions import Self


#: Data directories that were never used, by kind of server.
_templates: dict[type[PrivateServer], Path] = {}


class PrivateServer(ABC):
    """A server process on a free port of the loopback interface, with its data below the temporary directory.

    Not in the directory of a test: a database server won't run as root, and its own user may not look in there.
    """

    #: The program that is started; where Debian puts it, it may not be on PATH.
    program: str
    others: tuple[str, ...] = ()
    #: Who runs it where we are root.
    user: str
    #: What has it end in an orderly way.
    goodbye = signal.SIGTERM

    def __init__(self, query: str = "") -> None:
        self._query = query
        self._home = Path(tempfile.mkdtemp(prefix="gotasks-server-"))
        self._home.chmod(0o755)
        self.data = self._home / "data"
        self.port = free_port()
        self._process = ServerProcess(self.program, self._home / "server.log")
        try:
            if os.geteuid() == 0:
                shutil.chown(self._home, self.user)
            self.prepare()
        except BaseException:
            shutil.rmtree(self._home, ignore_errors=True)
            raise

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    @property
    @abstractmethod
    def url(self) -> str:
        """A broker URL, also while it is down."""

    def prepare(self) -> None:
        """Make its data directory: a copy of one that is made once in a process, since that takes seconds."""
        template = _templates.get(type(self))
        if template is None:
            self.make_data()
            template = _templates[type(self)] = Path(tempfile.mkdtemp(prefix="gotasks-template-"))
            atexit.register(shutil.rmtree, template, ignore_errors=True)
            shutil.copystat(self._home, template)
            subprocess.run(["cp", "-a", self.data, template], check=True)  # noqa: S603, S607 - keeps the owner
        else:
            subprocess.run(["cp", "-a", template / "data", self._home], check=True)  # noqa: S603, S607

    @abstractmethod
    def make_data(self) -> None:
        """Make its data directory."""

    @abstractmethod
    def words(self) -> list[str]:
        """The command that runs it."""

    @abstractmethod
    def address(self) -> sa.URL:
        """A database that is there from the beginning, for SQLAlchemy."""

    def binary(self, name: str) -> str:
        """The path of a program of this server. Raises MissingHook if it isn't installed."""
        for path in (None, *self.others):
            found = shutil.which(name, path=path)
            if found:
                return found
        raise MissingHook("server(directory)", f"there is no {name} for a server that the suite may kill")

    def run(self, *words: str) -> None:
        """Run a program of it, as its user. Raises RuntimeError with what it said if it fails."""
        done = subprocess.run(  # noqa: S603 - a program of the server's
            words, capture_output=True, text=True, check=False, **self._as_user()
        )
        if done.returncode != 0:
            raise RuntimeError(f"{words[0]} failed: {done.stderr[-2000:]}")

    def _as_user(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {"cwd": self._home}
        user = pwd.getpwnam(self.user)
        return {"cwd": self._home, "user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def start(self, *, timeout: float = 30.0) -> Self:
        """Start it with what it kept; return when it answers."""
        self._process.start(self.words(), self._answers, timeout=timeout, **self._as_user())
        return self

    def _answers(self) -> bool:
        engine = sa.create_engine(self.address(), poolclass=sa.NullPool)
        try:
            with engine.connect():
                return True
        except sa.exc.OperationalError:  # not there yet, or still recovering
            return False

    def stop(self) -> None:
        """Stop it in an orderly way, and wait until it's gone."""
        self._process.stop(by=self.goodbye)

    def kill(self) -> None:
        """SIGKILL of the server and all its processes. Idempotent."""
        self._process.kill()


class PrivatePostgreSQL(PrivateServer):
    """Keeps all that it confirms (`fsync` and `synchronous_commit` are on by default)."""

    program = "postgres"
    others = tuple(str(each) for each in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))
    user = "postgres"
    goodbye = signal.SIGINT  # "fast": it doesn't wait for its clients

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres{self._query}"

    def address(self) -> sa.URL:
        return sa.URL.create(
            "postgresql+psycopg", username="postgres", host="127.0.0.1", port=self.port, database="postgres"
        )

    def make_data(self) -> None:
        self.run(
            self.binary("initdb"),
            "-D",
            str(self.data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        )

    def words(self) -> list[str]:
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "300",
        }
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [self.binary("postgres"), "-D", str(self.data), *settings]


class PrivateMariaDB(PrivateServer):
    """MariaDB; its URL is that of the scheme under test."""

    program = "mariadbd"
    others = ("/usr/sbin", "/usr/local/sbin")
    user = "mysql"

    @property
    def url(self) -> str:
        return f"mariadb+pymysql://root@127.0.0.1:{self.port}/gotasks{self._query}"

    def address(self) -> sa.URL:
        return sa.URL.create(
            "mysql+pymysql", username="root", host="127.0.0.1", port=self.port, database="gotasks"
        )

    def make_data(self) -> None:
        self.run(
            self.binary("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={self.data}",
            f"--tmpdir={self._home}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )
        (self.data / "gotasks").mkdir()  # an empty database
        if os.geteuid() == 0:
            shutil.chown(self.data / "gotasks", self.user)

    def words(self) -> list[str]:
        return [
            self.binary("mariadbd"),
            "--no-defaults",
            f"--datadir={self.data}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--tmpdir={self._home}",
            f"--socket={self._home}/socket",
            f"--pid-file={self._home}/pid",
            "--max-connections=300",
            "--innodb-buffer-pool-size=64M",
            "--innodb-flush-log-at-trx-commit=1",
        ]
