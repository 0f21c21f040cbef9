"""Carry out one command for a peer: `python -m benchmarks.peers COMMAND`, in the peer's venv.

The peer's script is imported under its full name, as its workers import it: tasks are often named after their module.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from typing import Any

from benchmarks.peers.kit import Peer, carry_out
from benchmarks.protocol import reply


def answer(command: Mapping[str, Any]) -> Mapping[str, Any]:
    """`script`: the peer's module; the rest is for it."""
    peer: Peer = importlib.import_module(f"benchmarks.peers.{command['script']}").peer
    return asyncio.run(carry_out(peer, command))


if __name__ == "__main__":
    reply(answer)
