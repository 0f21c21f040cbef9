"""Run: all measures on somebody's broker, one after the other, and what follows from them."""

from __future__ import annotations

import importlib.util
import os
import platform

from gotasks import __version__
from gotasks.bench import measures
from gotasks.bench.advice import Place, advise
from gotasks.bench.figures import Drain, Figures, Report, Time
from gotasks.bench.heard import Heard
from gotasks.bench.stand import Stand
from gotasks.bench.timer import Progress, Timer
from gotasks.broker import BrokerURL, Capability
from gotasks.discovery import open_broker

#: A backlog is so many times as large as the warm-up says: it began with threads and statements that weren't there.
_SPARE = 3


def run(
    url: BrokerURL, queue: str, *, seconds: float, slots: int, payload: int, progress: Progress
) -> Report:
    """Measure each thing for about so many seconds, in a queue of this name. Leaves no task there, however it ends.

    In the main thread, whose signals it takes. Raises what `open_broker` raises, Stopped after Ctrl-C or SIGTERM, and
    another GotasksError if the broker fails or what was left there can't be removed.
    """
    with Heard() as heard:
        stand = Stand(open_broker(url), queue, slots=slots, payload=payload)
        timer = Timer(seconds, progress, stand.check)
        with timer.signals(), stand:
            figures = _measure(stand, timer)
    place = Place(
        scheme=url.scheme,
        params=dict(url.params),
        shared=Capability.SHARED in stand.broker.capabilities,
        cores=_cores(),
        hiredis=importlib.util.find_spec("hiredis") is not None,
        slots=slots,
    )
    return Report(
        gotasks=__version__,
        python=platform.python_version(),
        url=str(url),
        seconds=seconds,
        slots=slots,
        payload=payload,
        figures=figures,
        advice=advise(figures, place),
        warnings=heard.lines,
    )


def _measure(stand: Stand, timer: Timer) -> Figures:
    rate = measures.warm_up(stand, timer)
    backlog = round(rate * timer.seconds * _SPARE)
    ping = measures.ping(stand, timer)
    enqueue, waiting = measures.enqueue(stand, timer, backlog)
    counts, tasks = measures.drain(stand, timer, waiting)
    return Figures(
        ping=ping,
        enqueue=enqueue,
        drain=Drain.of(counts, tasks),
        chain_steps_per_second=measures.chains(stand, timer, round(tasks / counts.seconds * timer.seconds)),
        latency=measures.latency(stand, timer),
        time=Time.of(counts, tasks),
    )


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
