"""`gotasks worker`: serve queues, in this process or in several."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
from click.core import ParameterSource

from gotasks import __version__, metrics, settings
from gotasks.app import App
from gotasks.cli import exits
from gotasks.cli.logconfig import LEVELS, configure
from gotasks.cli.modules import import_module
from gotasks.cli.options import app_option, broker_option, option, seconds
from gotasks.cli.target import find_app, refuse_unshared, undeclared
from gotasks.errors import BrokerError
from gotasks.job import Job
from gotasks.logs import LogListener
from gotasks.settings import QueueOptions
from gotasks.worker.signals import run_until_signal
from gotasks.worker.supervisor import Lifeline, Supervisor
from gotasks.worker.worker import Worker

logger = logging.getLogger("gotasks")

#: Where a supervised process publishes its metrics; the supervisor serves their sum.
METRICS_DIR = "GOTASKS_METRICS_DIR"

#: Options that are the supervisor's own business.
_NOT_PASSED_ON = ("processes", "metrics_port", "broker")


class Served(NamedTuple):
    """A queue to serve, and how many handlers at once if that is said."""

    name: str
    limit: int | None

    def __str__(self) -> str:
        return self.name if self.limit is None else f"{self.name}:{self.limit}"


def _served(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Served, ...]:
    """A callback for `orders` or `orders:10`, or several between commas."""
    return tuple(_one_served(each) for value in values for each in value.split(",") if each)


def _one_served(value: str) -> Served:
    name, colon, limit = value.partition(":")
    if not colon:
        return Served(name, None)
    if not re.fullmatch(r"[0-9]{1,6}", limit) or int(limit) < 1:
        raise click.BadParameter(f"the limit in {value!r} is a whole number from 1, as in orders:10")
    return Served(name, int(limit))


@click.command(epilog=exits.EPILOG)
@click.argument("app_argument", metavar="[MODULE:APP]", required=False)
@option(
    "-q",
    "--queue",
    "served",
    envvar="GOTASKS_QUEUES",
    multiple=True,
    callback=_served,
    metavar="QUEUE[:LIMIT]",
    help="Serve this queue, LIMIT handlers at once. Repeat it. Default: all that the app declares.",
)
@option(
    "--include", multiple=True, metavar="MODULE", help="Import this module too; it registers jobs. Repeat it."
)
@app_option
@broker_option
@option("--processes", type=click.IntRange(min=1), default=1, show_default=True, help="Worker processes.")
@option(
    "--lease",
    type=seconds,
    metavar="SECONDS",
    help="After that time a dead worker's task is offered again. Default: what the queue says, or 30.",
)
@option("--grace", type=seconds, metavar="SECONDS", help="How long a stop waits for handlers. Default: 30.")
@option(
    "--monitor-interval",
    type=seconds,
    metavar="SECONDS",
    help="Between two measurements of a queue. Default: what the queue says, or 5.",
)
@option(
    "--metrics-port",
    metavar="[HOST:]PORT",
    help="Serve Prometheus metrics, on 127.0.0.1 unless told otherwise.",
)
@option("--log-level", type=click.Choice(LEVELS, case_sensitive=False), help="Default: info.")
@option("--log-json", is_flag=True, help="Log one JSON object a line.")
@click.pass_context
def worker(
    ctx: click.Context,
    *,
    app_argument: str | None,
    served: tuple[Served, ...],
    include: tuple[str, ...],
    app_spec: str | None,
    broker: str | None,
    processes: int,
    lease: float | None,
    grace: float | None,
    monitor_interval: float | None,
    metrics_port: str | None,
    log_level: str | None,
    log_json: bool,
) -> None:
    """Run the tasks of some queues until SIGTERM or SIGINT.

    \b
      gotasks worker shop.tasks:app
      gotasks worker shop.tasks:app -q orders:10 -q mail:4 --processes 2

    MODULE:APP may also be given by --app or GOTASKS_APP; without :APP it's the only App in the module. Limits hold
    for each process.

    The first signal stops cleanly: running handlers finish within --grace, no further step starts, and other workers
    go on with the tasks where they are. A second signal ends at once; what was running then counts as crashed.
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    lifeline = Lifeline.inherited()
    app = find_app(_spec(ctx, app_argument, app_spec), broker, needs_app=True)
    for module in include:
        import_module(module)
    configure(log_level, as_json=log_json)
    app.events.listen(LogListener())
    if lifeline is None:
        _warn_of_undeclared(app, served)
    options = _options(app, served, lease, monitor_interval)
    grace = settings.grace() if grace is None else grace
    ours = Worker(app, options, grace=grace)  # checks everything; nothing is connected or threaded yet
    supervised = processes > 1 and lifeline is None
    if supervised:
        refuse_unshared(app, f"--processes {processes}")
        _refuse_what_never_works(app)
    if lifeline is None:
        _introduce(app, ours.jobs, options, processes, logger.info if log_json else click.echo)
    address = f":{metrics_port}" if metrics_port and metrics_port.isdecimal() else metrics_port
    try:
        if supervised:
            ctx.exit(_supervise(ctx, processes, grace, address))
        with _metrics(app, address):
            in_time = run_until_signal(ours, None if lifeline is None else lifeline.orders)
        logger.info("worker stopped")
        if not in_time:
            ctx.exit(exits.FAILED)
    finally:
        app.close()


def _spec(ctx: click.Context, argument: str | None, option_value: str | None) -> str | None:
    """The argument goes before --app, and both before GOTASKS_APP."""
    if argument is None or argument == option_value:
        return option_value
    if option_value is not None and ctx.get_parameter_source("app_spec") is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"two apps are named, {argument} and {option_value}: name one")
    return argument


def _options(
    app: App, served: Sequence[Served], lease: float | None, monitor_interval: float | None
) -> dict[str, QueueOptions]:
    """The options of each queue that is served: the command line, then the environment, then what the app says."""
    limits: dict[str, int | None] = {}
    for name, limit in served:
        if limits.setdefault(name, limit) != limit:
            raise click.UsageError(f"queue {name!r} is named twice, with different limits: name it once")
    result: dict[str, QueueOptions] = {}
    for name, options in app.worker_options(limits).items():
        result[name] = replace(
            options,
            max_limit=limits.get(name) or options.max_limit,
            lease=lease or options.lease,
            monitor_interval=monitor_interval or options.monitor_interval,
        )
    return result


def _refuse_what_never_works(app: App) -> None:
    """Raise ConfigurationError for a broker that needs a person first, a migration say: else each process would end
    with that, and be started again, for ever.
    """
    with contextlib.suppress(BrokerError):  # of what may pass by itself the processes tell, and ask again
        app.dispatch.broker.warnings()
    app.close()  # nothing is connected here while they work


def _warn_of_undeclared(app: App, served: Sequence[Served]) -> None:
    for name, _ in served:
        if (sentence := undeclared(app, name)) is not None:
            logger.warning("%s", sentence)


def _introduce(
    app: App,
    jobs: Mapping[str, Job],
    options: Mapping[str, QueueOptions],
    processes: int,
    say: Callable[[str], object],
) -> None:
    """Say what is served."""
    several = f", {processes} worker processes" if processes > 1 else ""
    say(f"gotasks {__version__}, process {os.getpid()}{several}")
    say(f"broker: {app.broker}")
    say(f"queues: {', '.join(f'{name} ({each.max_limit} at once)' for name, each in options.items())}")
    say("jobs (* = reentrant):")
    for name in sorted(jobs):
        say(f"  {name}: {jobs[name].describe()}")


@contextlib.contextmanager
def _metrics(app: App, address: str | None) -> Iterator[None]:
    """Serve or publish the metrics of this process, if it's asked for."""
    with contextlib.ExitStack() as stack:
        if directory := os.environ.get(METRICS_DIR):
            stack.enter_context(metrics.publish(app, Path(directory) / f"{os.getpid()}.json"))
        if address:
            stack.enter_context(metrics.run_server(app, address))
        yield


def _supervise(ctx: click.Context, processes: int, grace: float, address: str | None) -> int:
    """Run the same command in several processes, and serve the sum of their metrics."""
    env = {
        key: value for key, value in os.environ.items() if key not in ("GOTASKS_METRICS_PORT", METRICS_DIR)
    }
    if (broker := ctx.params["broker"]) is not None:
        env["GOTASKS_BROKER_URL"] = broker  # not in the children's command lines, which anybody can read
    with contextlib.ExitStack() as stack:
        if address:
            env[METRICS_DIR] = stack.enter_context(tempfile.TemporaryDirectory(prefix="gotasks-metrics-"))
        supervisor = Supervisor(_child_command(ctx), processes, grace=grace, env=env)
        if address:
            directory = env[METRICS_DIR]
            stack.enter_context(metrics.run_merged_server(directory, address, lambda: supervisor.living))
        return supervisor.run()


def _child_command(ctx: click.Context) -> list[str]:
    """This command line again; what came from the environment is inherited anyway."""
    words = [sys.executable, "-m", "gotasks", "worker", "--processes", "1"]
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if name in _NOT_PASSED_ON or ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[name]
        if not isinstance(parameter, click.Option):
            continue
        for each in value if parameter.multiple else [value]:
            words += [parameter.opts[-1]] if parameter.is_flag else [f"{parameter.opts[-1]}={each}"]
    if ctx.params["app_argument"]:
        words += ["--", ctx.params["app_argument"]]
    return words
