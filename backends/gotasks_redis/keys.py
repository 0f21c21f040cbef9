"""The names of keys. All of a namespace share one hash tag, so every script touches one slot of a cluster.

The scripts build the same names from the same prefix. `lua/common.lua` says what each kind of key holds: task, ready,
lists, gone, scheduled, leased, unique, wake. Only those that are named here are used outside of the scripts.
"""

from __future__ import annotations

import re

from gotasks.broker import BrokerURL
from gotasks.errors import InvalidURL

_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Keys:
    """The keys of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.prefix = f"{{{namespace}}}:"
        self.nothing = f"{self.prefix}nothing"  #: never there, see `lua/common.lua` and `route.Cluster`
        self.probe = f"{self.prefix}probe"  #: there for a moment, see `Connections`

    @classmethod
    def of(cls, url: BrokerURL) -> Keys:
        """Those of `?namespace=`, or of `gt`. Raises InvalidURL."""
        namespace = url.text("namespace", "gt")
        if not _NAMESPACE.fullmatch(namespace):
            raise InvalidURL("namespace= is 1 to 64 of A-Z a-z 0-9 _ . -")
        return cls(namespace)

    def task(self, task_id: str) -> str:
        return f"{self.prefix}task:{task_id}"

    def ready(self, queue: str) -> str:
        return f"{self.prefix}ready:{queue}"

    def leased(self, queue: str) -> str:
        return f"{self.prefix}leased:{queue}"

    def wake(self, queue: str) -> str:
        return f"{self.prefix}wake:{queue}"

    @staticmethod
    def of_go(queue: str) -> str:
        """The list of the Go library for a queue: in no namespace, and in a slot of its own."""
        return f"gt:queue:{queue}"
