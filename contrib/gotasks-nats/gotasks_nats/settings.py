"""What settings of a stream make of the promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def complaints(stream: str, settings: Mapping[str, Any]) -> Sequence[str]:
    """Sentences about settings of the stream under which tasks are lost."""
    found = []
    if settings.get("storage") != "file":
        found.append(
            f"the stream {stream} is kept in memory: all tasks end with the server. Its storage must be file"
        )
    if settings.get("max_age"):
        found.append(f"the stream {stream} throws away what is older than its max_age: set that to 0")
    if settings.get("discard") != "new":
        found.append(f"the stream {stream} throws away old tasks when it's full: set its discard to new")
    if settings.get("max_msgs_per_subject", -1) > 0:
        found.append(
            f"the stream {stream} forgets what was replaced without erasing it, so a kill of the server may bring "
            "ended tasks back: set its max_msgs_per_subject to -1"
        )
    if settings.get("retention") not in (None, "limits"):
        found.append(f"the stream {stream} removes what was delivered: its retention must be limits")
    return found
