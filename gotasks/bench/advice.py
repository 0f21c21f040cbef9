"""Advice: sentences that help, from the figures. Each rule is a function, and has its figure in its sentence."""

from __future__ import annotations

import msgspec

from gotasks.bench.figures import Figures

#: From here on a round trip is what all else waits for. Milliseconds.
_FAR = 5.0

#: From here on, as a part of the time, the broker limits a worker, or its own CPU does, or something else.
_BROKER = 0.4
_PROCESS = 0.85
_WAITING = 0.3

#: Calls that carry more than that gain little by carrying more.
_LARGE_GROUP = 50.0

#: From here on it pays to enqueue in bulk.
_BULK = 3.0

#: An enqueue that takes longer waits for the disk. Milliseconds.
_DISK = 1.0

#: From here on, and from so many round trips on, an idle worker isn't woken but asks. Milliseconds.
_POLLED = 20.0
_POLLED_TRIPS = 10

_REDIS = ("redis", "rediss", "unix", "valkey", "valkeys")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where it was measured, as far as the rules ask."""

    scheme: str  #: of the URL
    params: dict[str, str]  #: of the URL
    shared: bool  #: several processes can use the broker
    cores: int
    hiredis: bool  #: is installed
    slots: int


def advise(figures: Figures, place: Place) -> list[str]:
    """What would help, the most important first; empty if nothing stands out."""
    rules = (_far, _groups, _process, _hiredis, _disk, _bulk, _polled, _waiting)
    return [sentence for rule in rules if (sentence := rule(figures, place)) is not None]


def _far(figures: Figures, place: Place) -> str | None:
    if not _is_far(figures):
        return None
    return (
        f"A round trip takes {figures.ping.p50_ms:.1f} ms, and all else waits for that: enqueue in bulk "
        f"(enqueue_many is {_gain(figures):.0f} times as fast here), and raise max_limit ({place.slots} here), so that "
        "one call carries more tasks; best, work nearer to the server"
    )


def _groups(figures: Figures, place: Place) -> str | None:
    share, group = figures.time.broker_us / figures.time.task_us, figures.drain.tasks_per_call
    if _is_far(figures) or share < _BROKER or group >= _LARGE_GROUP:
        return None
    return (
        f"A worker waits for the broker {share:.0%} of the time, whose calls carry {group:.1f} tasks each: raise "
        f"max_limit ({place.slots} here), so that they carry more"
    )


def _process(figures: Figures, place: Place) -> str | None:
    share = _process_share(figures)
    if share < _PROCESS:
        return None
    busy = f"This process was at work {share:.0%} of the time"
    if not place.shared:
        return f"{busy}: a broker that processes can share lets gotasks worker --processes use more cores than one"
    if place.cores == 1:
        return f"{busy}, and this machine has no other core: let workers run on another one too"
    return f"{busy}: gotasks worker --processes {place.cores} uses all {place.cores} cores"


def _hiredis(figures: Figures, place: Place) -> str | None:
    if place.scheme not in _REDIS or place.hiredis:
        return None
    return (
        f"Without hiredis the answers of Redis are read in Python, and this process was at work "
        f"{_process_share(figures):.0%} of the time: pip install hiredis"
    )


def _disk(figures: Figures, place: Place) -> str | None:
    each = 1000 / figures.enqueue.one_by_one
    if place.scheme != "sqlite" or place.params.get("synchronous", "").lower() == "normal" or each < _DISK:
        return None
    return (
        f"An enqueue takes {each:.1f} ms, since a commit waits for the disk: with ?synchronous=normal it doesn't, but "
        "a power cut may take the latest ones"
    )


def _bulk(figures: Figures, _place: Place) -> str | None:
    if _is_far(figures) or _gain(figures) < _BULK:
        return None
    return (
        f"enqueue_many stores {figures.enqueue.bulk:,.0f} tasks a second, {_gain(figures):.0f} times as many as one by "
        "one: use it where many come at once"
    )


def _polled(figures: Figures, _place: Place) -> str | None:
    found, trip = figures.latency.p50_ms, figures.ping.p50_ms
    if found < _POLLED or found < _POLLED_TRIPS * trip:
        return None
    return (
        f"An idle worker hears of a task after {found:.0f} ms, though a round trip takes {trip:.2g} ms: it asks from "
        "time to time. Where that matters choose a broker that wakes it; the README says which do"
    )


def _waiting(figures: Figures, _place: Place) -> str | None:
    share = figures.time.waiting_us / figures.time.task_us
    if share < _WAITING:
        return None
    return (
        f"For {share:.0%} of the time neither this process was at work nor a call under way: something else had the "
        "CPU. Measure again when the machine is quiet"
    )


def _is_far(figures: Figures) -> bool:
    return figures.ping.p50_ms >= _FAR


def _gain(figures: Figures) -> float:
    return figures.enqueue.bulk / figures.enqueue.one_by_one


def _process_share(figures: Figures) -> float:
    return figures.time.process_us / figures.time.task_us
