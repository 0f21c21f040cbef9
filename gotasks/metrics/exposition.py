"""Exposition: totals as Prometheus metrics, and the server that shows them. Imports prometheus_client, so it's slow."""

from __future__ import annotations

import errno
import itertools
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gotasks.errors import ConfigurationError
from gotasks.metrics.totals import BUCKETS, FAMILIES, Cells, Family, Key, Totals

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger("gotasks")

#: Seconds until the server's thread notices that it is closed.
_NOTICE = 0.1

_BOUNDS = [*map(floatToGoString, BUCKETS), "+Inf"]


def new_registry(totals: Callable[[], Totals]) -> CollectorRegistry:
    """A registry that asks for the totals whenever it is scraped."""
    registry = CollectorRegistry()
    registry.register(_TotalsCollector(totals))
    return registry


class _TotalsCollector(Collector):
    def __init__(self, totals: Callable[[], Totals]) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        totals = self._totals()
        for name, family in FAMILIES.items():
            yield (_histogram if family.timed else _counter)(family, totals.sums.get(name, {}))
        yield from _sizes(totals)
        in_flight = GaugeMetricFamily(
            "gotasks_in_flight",
            "Tasks that workers hold: running, or until their last write.",
            labels=["queue_name"],
        )
        for queue, count in totals.in_flight.items():
            in_flight.add_metric([queue], count)
        yield in_flight
        yield GaugeMetricFamily(
            "gotasks_loop_stalled",
            "Workers whose event loop made no progress for a lease's length: an async handler blocks it.",
            value=totals.stalled,
        )


def _counter(family: Family, series: dict[Key, Cells]) -> Metric:
    metric = CounterMetricFamily(family.name, family.help, labels=family.labels)
    for key, (count,) in series.items():
        metric.add_metric(key, count)
    return metric


def _histogram(family: Family, series: dict[Key, Cells]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for key, (*counts, seconds) in series.items():
        below = itertools.accumulate(counts)
        metric.add_metric(key, list(zip(_BOUNDS, below, strict=True)), sum_value=seconds)
    return metric


def _sizes(totals: Totals) -> Iterator[Metric]:
    ready = GaugeMetricFamily("task_queue_stats", "Tasks that are ready.", labels=["queue_name"])
    states = GaugeMetricFamily(
        "gotasks_task_queue", "Tasks by state, as the broker said last.", labels=["queue_name", "state"]
    )
    for queue, size in totals.sizes.items():
        if size.ready is not None:
            ready.add_metric([queue], size.ready)
        for state, count in (("ready", size.ready), ("scheduled", size.scheduled), ("leased", size.leased)):
            if count is not None:
                states.add_metric([queue, state], count)
    yield ready
    yield states


class MetricsServer:
    """An HTTP server on a daemon thread of its own, one more for each request. `with`, or `close()` it.

    Any path answers with the metrics.
    """

    def __init__(self, registry: CollectorRegistry, address: str) -> None:
        """Binds and serves at once. Raises ConfigurationError."""
        host, port = _parsed(address)
        try:
            family, _, _, _, (where, *_) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._server = _Server(family, str(where), port)
        except socket.gaierror:
            raise ConfigurationError(
                f"metrics: no host {host!r} is known; an address is HOST:PORT or :PORT"
            ) from None
        except OSError as error:
            raise ConfigurationError(f"metrics: can't listen on {address!r}: {_reason(error)}") from None
        self._server.set_app(make_wsgi_app(registry))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_NOTICE,), name="gotasks-metrics", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is served; a free one where 0 was asked for."""
        return self._server.server_port

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Handler(WSGIRequestHandler):
    timeout = 30  # a client that sends nothing must not hold a thread for ever

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is given
        logger.debug("metrics: " + format, *args)  # noqa: G003 - the format is the base class's


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, family: int, host: str, port: int) -> None:
        self.address_family = family
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # Not the base class's: it looks its own name up in the DNS, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        logger.debug("metrics: a request from %s failed", client_address, exc_info=True)  # noqa: LOG014 - called in one


def _parsed(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(
            f"metrics: an address is HOST:PORT or :PORT, such as '127.0.0.1:2121' or '[::1]:2121', not {address!r}"
        )
    return host or "127.0.0.1", int(port)


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; choose another one, or 0 for any that is free"
    if error.errno == errno.EACCES:
        return "a port below 1024 needs rights that this process hasn't; choose a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return error.strerror or str(error)
