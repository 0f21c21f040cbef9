"""`gotasks bench`: what a user's own server does, where the time goes, and what would help."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
import msgspec

from gotasks.broker import BrokerURL
from gotasks.cli import exits
from gotasks.cli.options import json_option, option, seconds
from gotasks.cli.output import note, plain, print_json, print_table

if TYPE_CHECKING:
    from gotasks.bench.figures import Report
    from gotasks.bench.timer import Progress

#: As a shell has it for a program that Ctrl-C has ended.
_INTERRUPTED = 130

#: Args maps are stored twice, and a task of the default App has 1 MiB.
_LARGEST = 500_000


@click.command("bench", epilog=exits.EPILOG)
@click.argument("url", envvar="GOTASKS_BROKER_URL", required=False)
@option(
    "--seconds",
    "each",
    type=seconds,
    metavar="SECONDS",
    envvar="GOTASKS_BENCH_SECONDS",
    default=3.0,
    show_default=True,
    help="Measure each of six things so long.",
)
@option(
    "--slots",
    type=click.IntRange(1, 1000),
    envvar="GOTASKS_BENCH_SLOTS",
    default=10,
    show_default=True,
    help="Handlers that the worker runs at once, as a queue's max_limit.",
)
@option(
    "--payload",
    type=click.IntRange(0, _LARGEST),
    metavar="BYTES",
    envvar="GOTASKS_BENCH_PAYLOAD",
    default=100,
    show_default=True,
    help="The size of a task's args map.",
)
@json_option
@click.pass_context
def bench(
    ctx: click.Context, url: str | None, *, each: float, slots: int, payload: int, as_json: bool
) -> None:
    """Measure the broker at URL: rates, latencies, where the time goes, and what would help.

    \b
      gotasks bench redis://127.0.0.1:6379/0
      GOTASKS_BROKER_URL=postgresql://user:password@host/shop gotasks bench

    A producer and one worker in this process, whose handlers do nothing, work in a queue of their own; other queues
    aren't touched, but the server has work to do meanwhile. At the end, after Ctrl-C too, all tasks are removed again.
    What stays is what any worker makes there: the tables of a database, and on RabbitMQ the queue, empty.
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from gotasks.bench.run import run
    from gotasks.bench.timer import Stopped

    if url is None:
        raise click.UsageError("which broker? Name its URL, as in: gotasks bench redis://127.0.0.1:6379/0")
    where, queue = BrokerURL(url), f"bench-{secrets.token_hex(4)}"
    try:
        with _progress(err=as_json) as progress:
            report = run(where, queue, seconds=each, slots=slots, payload=payload, progress=progress)
    except Stopped:
        note(f"stopped: nothing of this run waits on the broker{_kept(where, queue)}")
        ctx.exit(_INTERRUPTED)
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        _show(report)
    if kept := _kept(where, queue):
        note(f"no task is left{kept}")


def _kept(url: BrokerURL, queue: str) -> str:
    """What is to be said of an empty queue that stays."""
    if not url.scheme.startswith("amqp"):
        return ""
    return f", but an empty queue; delete it on RabbitMQ, where its name ends with :{queue}"


@contextmanager
def _progress(*, err: bool) -> Iterator[Progress]:
    """A bar where somebody looks at it, else a line for each thing that is measured."""
    from gotasks.bench.measures import NAMES

    stream = sys.stderr if err else sys.stdout
    if not stream.isatty():
        said: set[str] = set()

        def say(what: str, _part: float) -> None:
            if what not in said:
                said.add(what)
                click.echo(f"{what} …", err=err)

        yield say
        return
    with click.progressbar(length=100 * len(NAMES), file=stream, show_eta=False) as bar:

        def show(what: str, part: float) -> None:
            bar.label = f"{what:<{max(map(len, NAMES))}}"
            bar.update(round(100 * (NAMES.index(what) + part)) - bar.pos)

        yield show


def _show(report: Report) -> None:
    figures = report.figures
    enqueue, drain, time = figures.enqueue, figures.drain, figures.time
    calls = f"{drain.calls_per_task:.2f} calls a task, {drain.tasks_per_call:.1f} tasks a call; calls take "
    calls += f"{drain.in_calls:.0%} of the time"
    click.echo(plain(f"\n{report.url}: {report.slots} slots, args of {report.payload} bytes\n"))
    print_table(
        ("measured", "figure", "unit", ""),
        [
            ("round trip", f"{figures.ping.p50_ms:.3g}", "ms", f"p99 {figures.ping.p99_ms:.3g} ms"),
            ("enqueue", f"{enqueue.one_by_one:,.0f}", "tasks/s", "one by one"),
            ("enqueue", f"{enqueue.bulk:,.0f}", "tasks/s", f"in bulk, {enqueue.batch:,} in a call"),
            (
                "drain",
                f"{drain.tasks_per_second:,.0f}",
                "tasks/s",
                calls,
            ),
            ("chains", f"{figures.chain_steps_per_second:,.0f}", "steps/s", "of three steps"),
            (
                "latency",
                f"{figures.latency.p50_ms:.3g}",
                "ms",
                f"p99 {figures.latency.p99_ms:.3g} ms; from enqueue to start, idle worker",
            ),
        ],
        right=("figure",),
    )
    click.echo()
    parts = [
        ("broker", time.broker_us, "server, network or disk: in its calls, while this process isn't at work"),
        (
            "process",
            time.process_us,
            f"this one's CPU, {time.process_in_calls_us:.0f} µs of it in the broker's calls",
        ),
        ("waiting", time.waiting_us, "neither of them"),
    ]
    print_table(
        ("a task's time", "µs", "share", ""),
        [
            *((name, f"{us:.0f}", f"{us / time.task_us:.0%}", text) for name, us, text in parts),
            ("all", f"{time.task_us:.0f}", "", "in the drain"),
        ],
        right=("µs", "share"),
    )
    click.echo("\nwhat would help:")
    for each in report.advice or ["nothing stands out"]:
        click.echo(f"- {each}")
    for each in report.warnings:
        click.echo(plain(f"- the broker says: {each}"))
