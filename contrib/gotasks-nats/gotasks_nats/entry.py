"""Entry: what a message says of its task, in two headers; its payload is the body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from gotasks.broker import State

#: Where a task is by itself; what is scheduled or ended also depends on the time.
ENDED = (State.DONE, State.CANCELLED)

#: The header that names the queue. A message with this one alone, published by anybody, is a task too.
QUEUE = "Gotasks-Queue"

#: The header with all the rest, as JSON.
TASK = "Gotasks-Task"

_NS = 1_000_000_000
_FAR = 1e11  #: seconds, some 3,000 years: longer is as good as never


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """All about a task but its body."""

    queue: str = ""  #: in its own header
    state: Literal["scheduled", "ready", "leased", "done", "cancelled"] = "ready"
    priority: int = 0
    receipt: str = ""  #: of the lease that holds
    seq: int = 0  #: of the last write under it
    deaths: int = 0
    lasts: float = 0.0  #: seconds from the moment at which the server stored this, until it's due or over
    until: int = 0  #: the same as a time of the server, in ns; a checkpoint hands it on
    front: bool = False  #: before all others of its priority

    def headers(self) -> dict[str, str]:
        """The headers of a message."""
        rest = msgspec.structs.replace(self, queue="")
        return {QUEUE: self.queue, TASK: _encode(rest).decode()}

    @property
    def ended(self) -> bool:
        """Whether it's done or cancelled."""
        return self.state in ("done", "cancelled")

    def ends(self, stored: int) -> int:
        """When it is due or over, in ns, if the server stored it at `stored`."""
        return self.until or stored + int(min(max(self.lasts, 0.0), _FAR) * _NS)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


def decoded(headers: Mapping[str, str] | None) -> Entry | None:
    """What the headers of a message say. None: it is no task. What can't be read is ready, so that it isn't lost."""
    queue = (headers or {}).get(QUEUE, "")
    if not queue:
        return None
    try:
        entry = _decode((headers or {}).get(TASK, "{}"))
    except msgspec.MsgspecError:
        entry = Entry()
    return msgspec.structs.replace(entry, queue=queue)
