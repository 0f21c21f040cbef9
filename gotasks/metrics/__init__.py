"""Metrics for Prometheus: what the workers of an app do, counted while somebody may want to know.

    metrics.run_server(app, ":2121")        # http://127.0.0.1:2121/metrics
    metrics.wsgi_app(app)                   # or mounted in a web app of one's own
    metrics.asgi_app(app)

Counting begins when one of these is called first, or `app.metrics` is read: do that before a worker starts.

Several worker processes are shown on one port: each calls `publish`, and the process that started them calls
`run_merged_server`.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gotasks.metrics.published import Published, Publisher
from gotasks.metrics.tally import Tally
from gotasks.metrics.totals import Totals

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from gotasks.app import App
    from gotasks.metrics.exposition import MetricsServer

# prometheus_client is imported when something is shown: it would double the time that `import gotasks` takes.


class Metrics:
    """What one app has counted since this object was made. `app.metrics` is the only one. Safe from any thread."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._tally = Tally(lambda job: job in app.jobs)
        self._lock = threading.Lock()
        self._registry: CollectorRegistry | None = None
        self.run = secrets.token_hex(8)  #: where it counts from: another one counts from 0 again
        app.events.listen(self._tally)

    @property
    def registry(self) -> CollectorRegistry:
        """The app's own registry. What you register here yourself is shown with the rest."""
        from gotasks.metrics.exposition import new_registry

        with self._lock:
            if self._registry is None:
                self._registry = new_registry(self.totals)
            return self._registry

    def totals(self) -> Totals:
        """All that was counted so far, and what the app's workers in this process do now."""
        totals = self._tally.totals()
        for worker in self._app.events.sources:
            for queue in worker.queues:
                totals.in_flight[queue] = totals.in_flight.get(queue, 0) + worker.in_flight(queue)
            totals.stalled += worker.loop_stalled
        return totals


def run_server(app: App, address: str = ":2121") -> MetricsServer:
    """Serve the app's metrics by HTTP from a thread. Returns at once; `.port` is what is served, `.close()` ends it.

    `address` is HOST:PORT; without a host it's 127.0.0.1, and "0.0.0.0:2121" lets other machines in. Port 0 takes
    one that is free. Raises ConfigurationError if it isn't an address, or can't be listened on.
    """
    from gotasks.metrics.exposition import MetricsServer

    return MetricsServer(app.metrics.registry, address)


def wsgi_app(app: App) -> Callable[..., Any]:
    """A WSGI application that answers any path with the app's metrics."""
    from prometheus_client import make_wsgi_app

    return make_wsgi_app(app.metrics.registry)


def asgi_app(app: App) -> Callable[..., Any]:
    """An ASGI application that answers any path with the app's metrics."""
    from prometheus_client import make_asgi_app

    return make_asgi_app(app.metrics.registry)


def publish(app: App, path: str | os.PathLike[str], every: float = 1.0) -> Publisher:
    """Keep the file `path` up to date with what this process has counted, for `run_merged_server` in another one.

    The file is `<directory>/<process id>.json`; it is written now, every `every` seconds, and by `.close()`. A
    process that is killed loses at most what it counted since. Raises ConfigurationError if it can't be written.
    """
    return Publisher(Path(path), every, app.metrics.run, app.metrics.totals)


def run_merged_server(
    directory: str | os.PathLike[str], address: str, living: Callable[[], Collection[int]]
) -> MetricsServer:
    """Serve the sum of what processes publish in `directory`, as `run_server` does for one.

    Counters and histograms are summed over all processes that ever wrote there, so that they never go back when
    one ends. Tasks in flight and stalled loops count where `living()`, a set of process ids asked at each scrape,
    has the process; queues are as long as the newest measurement says. Files of an earlier start count too: begin
    with an empty directory. Raises ConfigurationError as `run_server`, or if there is no such directory.
    """
    from gotasks.metrics.exposition import MetricsServer, new_registry

    return MetricsServer(new_registry(Published(Path(directory), living).totals), address)
