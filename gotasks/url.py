"""BrokerURL: a broker's address, parsed once, never printed with its password."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from gotasks.errors import InvalidURL

_SCHEME = re.compile(r"^([a-z][a-z0-9.-]*)(?:\+([a-z0-9_.-]+))?://", re.IGNORECASE)
_SECRET = re.compile(r"pass|pwd|secret|token|key|auth|cred", re.IGNORECASE)
#: Half of a password in the wrong place is the usual reason for a URL that can't be understood.
_ENCODE = ". In a user or password, / ? # @ : and % are written %2F %3F %23 %40 %3A %25"
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


class BrokerURL:
    """A parsed broker URL: `scheme[+driver]://[user[:password]@]host[:port][,host…]/path[?name=value]`.

    `str()` and `repr()` hide the password and the value of every parameter that may be a secret.
    Immutable, so safe to share between threads.

    Attributes:
        scheme: lower case, without the driver. It selects the plug-in.
        driver: what follows `+`, or None.
        user, password: percent-decoded, or None.
        hosts: `(host, port or None)` pairs in the order given. Empty for `memory://` or `unix:///path`.
        path: percent-decoded, with its leading slash; empty if there is none.
        params: the query, decoded. A name given twice is an error.
        raw: the URL as it was given, secrets and all, for a driver that parses URLs itself.
    """

    __slots__ = ("driver", "hosts", "params", "password", "path", "raw", "scheme", "user")

    scheme: str
    driver: str | None
    user: str | None
    password: str | None
    hosts: tuple[tuple[str, int | None], ...]
    path: str
    params: Mapping[str, str]
    raw: str

    def __init__(self, url: str) -> None:
        """Parse `url`. Raises InvalidURL, whose message shows nothing but the scheme."""
        match = _SCHEME.match(url)
        if match is None:
            raise InvalidURL(
                "a broker URL starts with a scheme, as in 'redis://127.0.0.1:6379/0' or 'memory://'"
            )
        scheme, driver = match[1].lower(), match[2]
        try:
            parts = urlsplit(url)
            pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
            userinfo, at, hostlist = parts.netloc.rpartition("@")
            user, colon, password = userinfo.partition(":")
            hosts = tuple(_host(item) for item in hostlist.split(",")) if hostlist else ()
        except ValueError:
            # Not `from` it: that one shows the part that it doesn't like, which may be half of a password.
            raise InvalidURL(
                f"the {scheme}:// URL can't be parsed: check its host, port and query{_ENCODE}"
            ) from None
        if "@" in parts.path or parts.fragment or url.endswith("#"):
            raise InvalidURL(f"the {scheme}:// URL has a '#', or an '@' after its host{_ENCODE}")
        if any("@" in pair and "://" not in pair for pair in parts.query.split("&")):
            raise InvalidURL(f"the {scheme}:// URL has an '@' in its query{_ENCODE}")
        params = dict(pairs)
        if len(params) != len(pairs):
            raise InvalidURL(f"the {scheme}:// URL names a parameter twice: give each one once")
        values = {
            "scheme": scheme,
            "driver": driver,
            "user": unquote(user) if at and user else None,
            "password": unquote(password) if colon else None,
            "hosts": hosts,
            "path": unquote(parts.path),
            "params": MappingProxyType(params),
            "raw": url,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a BrokerURL is immutable")

    @property
    def full_scheme(self) -> str:
        """`scheme`, with `+driver` if there is one."""
        return f"{self.scheme}+{self.driver}" if self.driver else self.scheme

    def __str__(self) -> str:
        user = quote(self.user, safe="") if self.user else ""
        secret = ":***" if self.password is not None else ""
        at = "@" if user or secret else ""
        hosts = ",".join(_netloc(host, port) for host, port in self.hosts)
        query = "&".join(f"{name}={_shown(name, value)}" for name, value in self.params.items())
        return (
            f"{self.full_scheme}://{user}{secret}{at}{hosts}{quote(self.path)}{'?' if query else ''}{query}"
        )

    def __repr__(self) -> str:
        return f"BrokerURL({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BrokerURL) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def only(self, known: Iterable[str], *, driver: str | None = None) -> None:
        """Raise InvalidURL if a parameter isn't in `known`, or what follows `+` isn't `driver`.

        So a typo is never silently ignored, nor what another version can do.
        """
        if self.driver not in (None, driver):
            plain = f"{self.scheme}+{driver}" if driver else self.scheme
            raise InvalidURL(f"{self.full_scheme}:// isn't supported: write {plain}://")
        known = sorted(known)
        for name in self.params:
            if name not in known:
                raise InvalidURL(
                    f"{self.full_scheme}:// has no parameter {name!r}; it has {', '.join(known) or 'none'}"
                )

    def text(self, name: str, default: str) -> str:
        """The parameter `name`, or `default` if it isn't there."""
        return self.params.get(name, default)

    def boolean(self, name: str, *, default: bool) -> bool:
        """The parameter as a bool (1/0, true/false, yes/no, on/off). Raises InvalidURL."""
        value = self.params.get(name)
        if value is None:
            return default
        if value.lower() in _TRUE:
            return True
        if value.lower() in _FALSE:
            return False
        raise InvalidURL(f"{name}= in the {self.scheme}:// URL takes true or false")

    def integer(self, name: str, default: int, *, least: int = 0) -> int:
        """The parameter as a whole number of at least `least`. Raises InvalidURL."""
        value = self.params.get(name)
        if value is None:
            return default
        if not re.fullmatch("[0-9]{1,18}", value) or int(value) < least:
            raise InvalidURL(f"{name}= in the {self.scheme}:// URL takes a whole number of at least {least}")
        return int(value)

    def seconds(self, name: str, default: float) -> float:
        """The parameter as a positive number of seconds. Raises InvalidURL."""
        value = self.params.get(name)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) or float(value) <= 0:
            raise InvalidURL(f"{name}= in the {self.scheme}:// URL takes a number of seconds above 0")
        return float(value)


def _host(item: str) -> tuple[str, int | None]:
    split = urlsplit(f"//{item}")
    if not split.hostname:
        raise ValueError("empty host")
    return split.hostname, split.port


def _netloc(host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


def _shown(name: str, value: str) -> str:
    # A parameter may itself be a broker URL (`?records=redis://user:secret@…`), or name a secret.
    if _SECRET.search(name):
        return "***"
    if _SCHEME.match(value):
        try:
            return quote(str(BrokerURL(value)), safe=":/*@,[]")
        except InvalidURL:
            return "***"
    return "***" if "@" in value else quote(value, safe=":/,")
