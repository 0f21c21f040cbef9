"""Discovery: from a URL to a broker, through the entry-point group `gotasks.brokers`. Nothing is scanned at import."""

from __future__ import annotations

import difflib
import re
import threading
from importlib.metadata import EntryPoint, entry_points

from gotasks.broker import BROKER_API, Broker, BrokerURL
from gotasks.errors import (
    AmbiguousScheme,
    ConfigurationError,
    IncompatibleBroker,
    MissingDriver,
    UnknownScheme,
)

GROUP = "gotasks.brokers"

_classes: dict[str, type[Broker]] = {}
_lock = threading.Lock()


def open_broker(url: str | BrokerURL) -> Broker:
    """The broker for `url`, not yet connected.

    Raises InvalidURL, UnknownScheme, AmbiguousScheme, MissingDriver or IncompatibleBroker, each saying what to do.
    """
    parsed = url if isinstance(url, BrokerURL) else BrokerURL(url)
    entry = find(parsed.scheme)
    try:
        return broker_class(parsed.scheme).from_url(parsed)
    except ModuleNotFoundError as error:
        raise _missing_driver(entry, error) from error


def broker_class(scheme: str) -> type[Broker]:
    """The class that serves `scheme`. Raises as `open_broker` does. Thread-safe, cached."""
    with _lock:
        if scheme in _classes:
            return _classes[scheme]
    entry = find(scheme)
    try:
        cls = entry.load()
    except ModuleNotFoundError as error:
        raise _missing_driver(entry, error) from error
    where = f"{entry.value} ({distribution(entry)})"
    if not (isinstance(cls, type) and issubclass(cls, Broker)):
        raise IncompatibleBroker(
            f"{where} isn't a gotasks.broker.Broker class: ask its author to mend the entry point"
        )
    if cls.api != BROKER_API:
        raise IncompatibleBroker(
            f"{where} was written for version {cls.api} of the broker contract; this gotasks has {BROKER_API}: "
            f"upgrade {'gotasks' if cls.api > BROKER_API else distribution(entry)}"
        )
    with _lock:
        _classes[scheme] = cls
    return cls


def installed() -> list[EntryPoint]:
    """Every entry point that claims a scheme, sorted by scheme. Loads none."""
    return sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value))


def find(scheme: str) -> EntryPoint:
    """The one entry point for `scheme`. Raises UnknownScheme or AmbiguousScheme."""
    entries = installed()
    matching = {
        entry.value: entry for entry in entries if entry.name == scheme
    }  # the same one twice is no conflict
    if not matching:
        known = sorted({entry.name for entry in entries})
        close = difflib.get_close_matches(scheme, known, n=1)
        hint = f" Did you mean {close[0]}://?" if close else ""
        names = ", ".join(f"{name}://" for name in known)
        raise UnknownScheme(f"no installed package has a broker for {scheme}://.{hint} Known: {names}")
    if len(matching) > 1:
        names = " and ".join(sorted(f"{distribution(entry)} ({entry.value})" for entry in matching.values()))
        raise AmbiguousScheme(
            f"{scheme}:// is claimed by {names}: uninstall one, or pass App a Broker object"
        )
    return next(iter(matching.values()))


def distribution(entry: EntryPoint) -> str:
    """The name of the distribution that brought `entry`."""
    return entry.dist.name if entry.dist is not None else "an unknown distribution"


def _missing_driver(
    entry: EntryPoint, error: ModuleNotFoundError
) -> ConfigurationError | ModuleNotFoundError:
    """The sentence with the pip line; `error` itself if what is missing belongs to the plug-in."""
    package = (error.name or "").partition(".")[0]
    if not package or package == entry.value.partition(":")[0].partition(".")[0]:
        return error
    name = distribution(entry)
    extras = entry.dist.metadata.get_all("Provides-Extra") if entry.dist is not None else None
    extra = _extra_that_brings(entry, package, extras or [])
    install = f"pip install '{name}[{extra}]'" if extra else f"pip install {package}"
    return MissingDriver(f"{entry.name}:// needs the {package!r} package: {install}")


def _extra_that_brings(entry: EntryPoint, package: str, extras: list[str]) -> str | None:
    """The extra of the plug-in's distribution with which `package` comes: the scheme's own, else the smallest."""
    requires = (entry.dist.requires if entry.dist is not None else None) or []
    own = re.escape(distribution(entry))

    def of(extra: str) -> list[str]:
        return [each for each in requires if re.search(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]", each)]

    def brings(extra: str) -> bool:
        others = [
            match[1] for each in of(extra) if (match := re.match(rf"{own}\[(.+?)\]", each, re.IGNORECASE))
        ]
        return any(re.match(rf"{re.escape(package)}\b", each, re.IGNORECASE) for each in of(extra)) or any(
            brings(other) for names in others for other in re.split(r"\s*,\s*", names) if other != extra
        )

    found = [extra for extra in extras if brings(extra)]
    # `postgres` is the extra of postgresql://, and names its driver too, not only what several schemes need.
    return min(
        found,
        key=lambda extra: (not entry.name.startswith(extra), extra != package, len(of(extra))),
        default=None,
    )
