"""The Lua scripts, one for each operation, and their hashes."""

from __future__ import annotations

import hashlib
from importlib.resources import files


class Script:
    """A script's text, with the common part before it, and the hash by which a server knows it."""

    def __init__(self, name: str) -> None:
        folder = files(__package__) / "lua"
        self.name = name
        self.text = (folder / "common.lua").read_bytes() + b"\n" + (folder / f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


ENQUEUE = Script("enqueue")
ACQUIRE = Script("acquire")
ACQUIRE_IDS = Script("acquire_ids")
EXTEND = Script("extend")
CHECKPOINT = Script("checkpoint")
ACK = Script("ack")
RELEASE = Script("release")
STATS = Script("stats")
PURGE = Script("purge")
BROWSE = Script("browse")
GET = Script("get")
