"""The Lua scripts, one for each operation, and their hashes."""

from __future__ import annotations

import hashlib
from importlib.resources import files


class Script:
    """A script's text, with the parts that it needs before it, and the hash by which a server knows it.

    The common part is always needed. Each function costs a call a little, also where it isn't used.
    """

    def __init__(self, name: str, *parts: str, writes: bool = True) -> None:
        """`parts` are other files of the folder. `writes`: whether what it changes has to outlive the server."""
        folder = files(__package__) / "lua"
        self.name = name
        self.writes = writes
        self.text = b"\n".join((folder / f"{each}.lua").read_bytes() for each in ("common", *parts, name))
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


#: A write to the key that it is given. A full server doesn't refuse it: its first write takes nothing.
PROBE = "redis.call('DEL', KEYS[1]) return redis.call('SET', KEYS[1], '', 'PX', '1')"

ENQUEUE = Script("enqueue", "lists", "unique")
ACQUIRE = Script("acquire", "lists", "due", "lease")
ACQUIRE_IDS = Script("acquire_ids", "lists", "lease")
EXTEND = Script("extend")
CHECKPOINT = Script("checkpoint")
ACK = Script("ack", "unique")
RELEASE = Script("release", "lists")
STATS = Script("stats", "lists", writes=False)
PURGE = Script("purge", "lists", "unique")
BROWSE = Script("browse", "lists", "due", writes=False)
GET = Script("get", writes=False)
FROM_GO = Script("from_go", "lists")
COUNT_GO = Script("count_go", writes=False)
CANCEL = Script("cancel", "lists", "unique")
