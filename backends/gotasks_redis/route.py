"""Route: which server has the tasks now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import redis
from redis.crc import key_slot

from gotasks.broker import BrokerURL
from gotasks.errors import InvalidURL
from gotasks_redis.keys import Keys
from gotasks_redis.link import Address, Elsewhere, ask_once
from gotasks_redis.options import PORT, SENTINEL_PORT, client_options, service

_Found = TypeVar("_Found")


class Route(Protocol):
    """The way to the server that has the tasks of a URL. Thread-safe."""

    #: Names of keys that every script declares beside its own.
    guards: tuple[str, ...]

    def options(self) -> dict[str, Any]:
        """The arguments of `redis.Redis` for that server; asks for it where it may change.

        Raises the errors of redis-py, and OSError.
        """

    def moved(self, address: Address | None) -> bool:
        """Told where the tasks are now; None: only that they may be elsewhere. Returns whether they can be."""


def route(url: BrokerURL, keys: Keys) -> Route:
    """The way that a URL names. Raises InvalidURL."""
    if url.driver == "sentinel":
        return Sentinels(url)
    if url.driver == "cluster":
        return Cluster(url, keys)
    return Direct(url)


#: With what a look into a reply of another shape than expected ends.
_NO_USE = (TypeError, AttributeError, IndexError, ValueError)


class Direct:
    """One server, always the same."""

    guards: tuple[str, ...] = ()

    def __init__(self, url: BrokerURL) -> None:
        self._options = client_options(url)

    def options(self) -> dict[str, Any]:
        return self._options

    def moved(self, address: Address | None) -> bool:
        return False


class Sentinels:
    """The server that the sentinels name as master; they are asked for each connection, one after the other.

    Not by redis-py's Sentinel: that one asks no server whether it is the master, and what it says of sentinels that
    can't be reached is a page for each.
    """

    guards: tuple[str, ...] = ()

    def __init__(self, url: BrokerURL) -> None:
        self._service = service(url)
        self._options = client_options(url)
        self._by = self._options | {
            "username": url.params.get("sentinel_user"),
            "password": url.params.get("sentinel_password"),
            "db": 0,
        }
        self._sentinels = _addresses(url, SENTINEL_PORT)

    def options(self) -> dict[str, Any]:
        tried: set[Address] = set()
        return _first(self._sentinels, lambda sentinel: self._master(sentinel, tried))

    def moved(self, address: Address | None) -> bool:
        return False  # the next connection asks anyway

    def _master(self, sentinel: Address, tried: set[Address]) -> dict[str, Any]:
        """Its arguments, as this sentinel says. `tried`: those that the sentinels before have named."""
        reply = ask_once(self._by | _at(sentinel), "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        if reply is None:
            raise redis.exceptions.ConnectionError(f"no {self._service!r} is known there")
        master = _address(reply[0].decode(), reply[1])
        if master in tried:
            raise redis.exceptions.ConnectionError("names the same master")  # which may take its time
        tried.add(master)
        options = self._options | _at(master)
        # What a sentinel says may be old: after a fail-over the former master comes back as a replica.
        name = f"its master {master[0]}:{master[1]}"
        try:
            role = ask_once(options, "ROLE")[0]
        except redis.exceptions.NoPermissionError:
            role = b"master"  # else the first write shows it
        except (Elsewhere, redis.exceptions.RedisError, OSError) as error:
            raise redis.exceptions.ConnectionError(f"{name}: {error}") from None
        except _NO_USE:
            raise redis.exceptions.ConnectionError(f"{name} says nothing of use") from None
        if role != b"master":
            raise redis.exceptions.ConnectionError(f"{name} is a replica")
        self._sentinels = tuple(dict.fromkeys([sentinel, *self._sentinels]))
        return options


class Cluster:
    """The node of a cluster that has the slot of the namespace, in which all its keys are.

    While that slot is being moved, scripts are refused as a whole: each declares a key that never exists, so that the
    server sees before it begins that it hasn't got all keys. Else a script might find at its second write that a key is
    elsewhere already.
    """

    def __init__(self, url: BrokerURL, keys: Keys) -> None:
        self._options = client_options(url)
        self.guards: tuple[str, ...] = (keys.nothing,)
        self._slot = key_slot(keys.prefix.encode())
        self._seeds = _addresses(url, PORT)
        self._nodes = self._seeds  #: those that were there when one was asked, then the seeds
        self._owner: Address | None = None
        self._believed: Address | None = None  #: who was asked for it

    def options(self) -> dict[str, Any]:
        owner = self._owner
        if owner is None:
            owner = self._owner = _first(self._nodes, self._find)
        return self._options | _at(owner)

    def moved(self, address: Address | None) -> bool:
        if address is None:
            # Who has led to nothing is asked after the others: its view may be an old one.
            last = (self._believed, self._owner)
            self._nodes = tuple(sorted(self._nodes, key=lambda node: node in last))
        self._owner = address
        return True

    def _find(self, node: Address) -> Address:
        ranges = ask_once(self._options | _at(node), "CLUSTER", "SLOTS")
        # A node may not know by which host it's reached: then it's the one where it was found.
        masters = {
            (first, last): _address(
                node[0] if master[0] in (None, b"", b"?") else master[0].decode(), master[1]
            )
            for first, last, master, *_ in ranges
        }
        self._nodes = tuple(dict.fromkeys([node, *masters.values(), *self._seeds]))
        for (first, last), master in masters.items():
            if first <= self._slot <= last:
                self._believed = node
                return master
        raise redis.exceptions.ConnectionError(f"no node of the cluster has slot {self._slot}")


def _addresses(url: BrokerURL, port: int) -> tuple[Address, ...]:
    if not url.hosts:
        raise InvalidURL(f"a {url.full_scheme}:// URL names at least one host")
    return tuple((host, given or port) for host, given in url.hosts)


def _address(host: str, port: Any) -> Address:
    """What a server says of another. Raises ValueError, TypeError."""
    if not host or not 0 < int(port) < 2**16:
        raise ValueError("no address")
    return host, int(port)


def _at(address: Address) -> dict[str, Any]:
    host, port = address
    return {"host": host, "port": port}


def _first(addresses: tuple[Address, ...], find: Callable[[Address], _Found]) -> _Found:
    """What the first of them that can be asked says. Raises ConnectionError with what each one said instead."""
    said = []
    for address in addresses:
        try:
            return find(address)
        except (Elsewhere, redis.exceptions.RedisError, OSError) as error:
            said.append(f"{address[0]}:{address[1]}: {error}")
        except _NO_USE:
            said.append(f"{address[0]}:{address[1]}: says nothing of use")
    raise redis.exceptions.ConnectionError("; ".join(said)) from None
