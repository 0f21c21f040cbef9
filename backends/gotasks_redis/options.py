"""Options: from a URL to the arguments of `redis.Redis`."""

from __future__ import annotations

from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry

from gotasks.broker import BrokerURL
from gotasks.errors import InvalidURL

#: Seconds until a call that isn't answered is given up. Always longer than a blocking wait.
DEFAULT_TIMEOUT = 5.0

#: Parameters of the URL: of every one, and of those that lead by TLS or by sentinels.
_COMMON = frozenset({"namespace", "durability", "replicas", "timeout", "connect_timeout"})
TLS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})
SENTINEL = frozenset({"sentinel_user", "sentinel_password"})

#: The first host's, where none is given.
PORT = 6379
SENTINEL_PORT = 26379


def secure(url: BrokerURL) -> bool:
    """Whether its connections are encrypted."""
    return url.scheme in ("rediss", "valkeys")


def client_options(url: BrokerURL) -> dict[str, Any]:
    """The arguments of `redis.Redis`, but for host and port where there are several. Raises InvalidURL."""
    options: dict[str, Any] = {
        "username": url.user,
        "password": url.password,
        "socket_timeout": url.seconds("timeout", DEFAULT_TIMEOUT),
        "socket_connect_timeout": url.seconds("connect_timeout", DEFAULT_TIMEOUT),
        "socket_keepalive": True,
        # Never a blind repeat: whether a call may be sent again is for the core to decide.
        "retry": Retry(NoBackoff(), 0),
        # The pool only makes connections here, and never learns of their end: from redis-py 6 on its default is 100.
        "max_connections": 2**31 - 1,
        "decode_responses": False,
    }
    if options["socket_timeout"] < 2:
        raise InvalidURL("timeout= is at least 2 seconds: a worker's wait for a task takes up to 1")
    if url.scheme == "unix":
        url.only(_COMMON | {"db", "go"})
        if not url.path or url.hosts:
            raise InvalidURL("a unix:// URL names the socket: unix:///run/redis/redis.sock?db=0")
        return options | {"unix_socket_path": url.path, "db": url.integer("db", 0)}
    known = _COMMON | (TLS if secure(url) else frozenset())
    if url.driver == "sentinel":
        url.only(known | SENTINEL | {"go"}, driver="sentinel")
    elif url.driver == "cluster":
        if "go" in url.params:
            raise InvalidURL(
                f"{url.full_scheme}:// has no parameter 'go': the lists of the Go library are in other slots than "
                "the namespace. Move their documents to a server of its own first"
            )
        url.only(known, driver="cluster")
    else:
        url.only(known | {"go"})
        if len(url.hosts) > 1:
            raise InvalidURL(
                f"{url.scheme}:// takes one host; {url.scheme}+sentinel:// and {url.scheme}+cluster:// take several"
            )
        host, port = url.hosts[0] if url.hosts else ("127.0.0.1", None)
        options |= {"host": host, "port": port or PORT}
    options["db"] = _database(url)
    if secure(url):
        options["ssl"] = True
        options |= {name: url.params[name] for name in TLS & url.params.keys()}
        options["ssl_check_hostname"] = url.boolean("ssl_check_hostname", default=True)
    return options


def service(url: BrokerURL) -> str:
    """What the sentinels call the server: the first part of the path. Raises InvalidURL."""
    name = url.path.lstrip("/").partition("/")[0]
    if not name:
        raise InvalidURL(
            f"a {url.scheme}+sentinel:// URL names the sentinels and what they watch, as in "
            f"{url.scheme}+sentinel://host1:26379,host2:26379/mymaster/0"
        )
    return name


def _database(url: BrokerURL) -> int:
    path, example = url.path.strip("/"), f"host:{PORT}/0"
    if url.driver == "sentinel":
        path, example = url.path.lstrip("/").partition("/")[2].strip("/"), f"host:{SENTINEL_PORT}/mymaster/0"
    if path and not path.isdecimal():
        raise InvalidURL(
            f"a {url.full_scheme}:// URL ends with the number of the database, as in {url.full_scheme}://{example}"
        )
    if url.driver == "cluster" and int(path or 0):
        raise InvalidURL("a cluster has no database but 0")
    return int(path or 0)
