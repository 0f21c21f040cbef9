"""Durability: what the URL says that the server keeps of what it confirmed, and whether its settings do that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Literal

from gotasks.broker import BrokerURL
from gotasks.errors import InvalidURL

logger = logging.getLogger("gotasks")

Durability = Literal["none", "restart", "kill"]

_GRADES: Mapping[str, Durability] = {"none": "none", "restart": "restart", "kill": "kill"}
_ORDER = tuple(_GRADES)


def of(url: BrokerURL) -> Durability:
    """What `?durability=` says; none without it. Raises InvalidURL."""
    grade = _GRADES.get(url.text("durability", "none"))
    if grade is None:
        raise InvalidURL(f"durability= in the {url.scheme}:// URL takes none, restart or kill")
    return grade


def weaker(claimed: Durability, ask: Callable[[str], str | None]) -> str | None:
    """A sentence if the server keeps less than is claimed: what to change. `ask` gives a setting, or None.

    With `appendfsync everysec` Redis answers before it has written while a sync of the second before is still under
    way, so that SIGKILL takes what it has confirmed. With `always` and `no` it writes before it answers.
    """
    appendonly, appendfsync, save = ask("appendonly"), ask("appendfsync"), ask("save")
    if None in (appendonly, appendfsync, save):
        if claimed != "none":
            logger.info(
                "Redis doesn't tell its settings (CONFIG), so durability=%s can't be checked", claimed
            )
        return None
    kept = "kill" if appendonly == "yes" and appendfsync != "everysec" else "restart"
    if appendonly == "no":
        kept = "restart" if save else "none"
    if claimed == "none" and kept == "none":
        return "Redis keeps nothing on disk (appendonly no, no save): a restart loses every task"
    if _ORDER.index(kept) >= _ORDER.index(claimed):
        return None
    change = "appendonly to yes" if appendonly == "no" else ""
    if claimed == "kill" and appendfsync == "everysec":
        change = " and ".join(filter(None, [change, "appendfsync to always"]))
    return f"Redis: durability={claimed} is more than it keeps: set {change}, or say durability={kept} in the URL"
