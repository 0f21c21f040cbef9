"""`gotasks demo`: the whole machine on real input, with trouble on purpose, counted."""

from __future__ import annotations

import signal

import click

from gotasks.cli.options import json_option, option

#: As a shell has it for a program that Ctrl-C has ended.
_INTERRUPTED = 130


@click.command()
@click.argument("path", required=False)
@option(
    "--broker",
    metavar="URL",
    envvar="GOTASKS_BROKER_URL",
    help="Where the tasks wait. Default: a new SQLite file in this folder, removed at the end; without SQLAlchemy "
    "memory://. On a broker that processes share, worker processes are started, and one of them is killed.",
)
@option("--report", metavar="FILE", envvar="GOTASKS_DEMO_REPORT", help="Keep the report, in this new file.")
@option("--seed", type=int, envvar="GOTASKS_DEMO_SEED", help="Repeat the random failures of another run.")
@json_option
def demo(
    path: str | None, broker: str | None, report: str | None, seed: int | None, *, as_json: bool
) -> None:
    """Run every file under PATH through a chain of three steps, and count what comes out.

    Without PATH: the files of gotasks itself. One file more is gone, so its task ends in the fatal queue, and the last
    step fails now and then, and is retried. Then every file is looked for in the report. Exit code 0: none was lost,
    none is there twice.
    """
    from gotasks.demo.screen import Screen
    from gotasks.demo.show import show

    screen = Screen(as_json=as_json)
    context = click.get_current_context()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as polite as after Ctrl-C
    try:
        good = show(path, broker=broker, report=report, seed=seed, screen=screen)
    except KeyboardInterrupt:
        screen.say("stopped: the workers have ended, and nothing of this run waits on the broker", "yellow")
        context.exit(_INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, before)
    context.exit(0 if good else 1)
