"""A Redis cluster for tests that move its slots and kill its nodes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gotasks.conformance.kit.process import until
from gotasks.conformance.server_process import free_port
from tests.redis_server import PrivateRedis, ask, field
from tests.resp import Resp, RespError

#: The slots of a cluster.
SLOTS = 16384


class PrivateCluster:
    """Masters of a cluster that share its slots evenly. Not thread-safe."""

    def __init__(self, directory: Path, *, masters: int = 3) -> None:
        self._directory = directory
        self.nodes = [self._node(each) for each in range(masters)]

    @property
    def url(self) -> str:
        """The cluster, by all its nodes."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def start(self) -> PrivateCluster:
        """Start the nodes and make a cluster of them; return when each one serves its slots."""
        first, *others = self.nodes
        share = SLOTS // len(self.nodes)
        for number, node in enumerate(self.nodes):
            node.start()
            last = SLOTS if node is self.nodes[-1] else (number + 1) * share
            ask(node.url, "CLUSTER", "ADDSLOTS", *map(str, range(number * share, last)))
            ask(node.url, "CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for node in others:
            ask(node.url, "CLUSTER", "MEET", "127.0.0.1", str(first.port))
        for node in self.nodes:
            until(lambda: self._is_whole(node), "the cluster")  # noqa: B023
        return self

    def add_replica(self, master: PrivateRedis) -> PrivateRedis:
        """One more node, which has what this one has, and takes over when it dies."""
        node = self._node(len(self.nodes))
        self.nodes.append(node.start())
        ask(node.url, "CLUSTER", "MEET", "127.0.0.1", str(master.port))
        for each in self.nodes:
            until(lambda: self._is_whole(each), "the new node known")  # noqa: B023
        ask(node.url, "CLUSTER", "REPLICATE", _node_id(master))
        until(lambda: field(node.url, "replication", "master_link_status") == "up", "its data")
        for each in self.nodes:
            until(lambda: f"slave {_node_id(master)}" in _nodes(each), "the replica known")  # noqa: B023
        return node

    def owner(self, key: str) -> PrivateRedis:
        """The node that has the slot of this key."""
        for node in self.nodes:
            with suppress(RespError):  # MOVED, by those who haven't got it
                ask(node.url, "EXISTS", key)
                return node
        raise AssertionError(f"nobody serves {key}")

    def slot(self, key: str) -> str:
        """The number of a key's slot."""
        return str(ask(self.nodes[0].url, "CLUSTER", "KEYSLOT", key))

    def move(self, key: str, target: PrivateRedis) -> int:
        """Move a key's slot to another node, as `redis-cli --cluster reshard` does; how many keys that were."""
        with self.moving(key, target) as some:
            moved = 0
            while part := some(100):
                moved += part
        return moved

    @contextmanager
    def moving(self, key: str, target: PrivateRedis) -> Iterator[Callable[[int], int]]:
        """Within the block a key's slot is on its way. What it gives moves up to so many keys."""
        source, slot = self.owner(key), self.slot(key)
        here, there = _node_id(source), _node_id(target)
        ask(target.url, "CLUSTER", "SETSLOT", slot, "IMPORTING", here)
        ask(source.url, "CLUSTER", "SETSLOT", slot, "MIGRATING", there)

        def some(most: int) -> int:
            with Resp(source.url, timeout=30) as server:
                keys = server.call("CLUSTER", "GETKEYSINSLOT", slot, str(most))
                assert isinstance(keys, list)
                names = [each for each in keys if isinstance(each, bytes)]
                if names:
                    server.call("MIGRATE", "127.0.0.1", str(target.port), "", "0", "20000", "KEYS", *names)
                return len(names)

        yield some
        for node in (target, source, *self.nodes):
            ask(node.url, "CLUSTER", "SETSLOT", slot, "NODE", there)

    def kill(self) -> None:
        """Kill all nodes."""
        for node in self.nodes:
            node.kill()

    def _node(self, number: int) -> PrivateRedis:
        node = PrivateRedis(
            _made(self._directory / f"node-{number}"),
            cluster_enabled="yes",
            cluster_node_timeout="1000",
            repl_diskless_sync_delay="0",
        )
        node.port = _port_of_a_node()
        return node

    def _is_whole(self, node: PrivateRedis) -> bool:
        info = ask(node.url, "CLUSTER", "INFO")
        assert isinstance(info, bytes)
        known = f"cluster_known_nodes:{len(self.nodes)}\r".encode()
        return b"cluster_state:ok" in info and known in info and b"cluster_slots_ok:16384" in info


def _port_of_a_node() -> int:
    """A free port; the nodes of a cluster talk on the one that is 10,000 higher."""
    for _ in range(1000):
        port = free_port()
        if port + 10_000 < 2**16:
            with socket.socket() as probe, suppress(OSError):
                probe.bind(("127.0.0.1", port + 10_000))
                return port
    raise OSError("no two ports are free for a node of a cluster")


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _nodes(node: PrivateRedis) -> str:
    found = ask(node.url, "CLUSTER", "NODES")
    assert isinstance(found, bytes)
    return found.decode()


def _node_id(node: PrivateRedis) -> str:
    found = ask(node.url, "CLUSTER", "MYID")
    assert isinstance(found, bytes)
    return found.decode()
