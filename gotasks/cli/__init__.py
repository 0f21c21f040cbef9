"""The command line: `gotasks`, or `python -m gotasks`. One command, or one group of them, a file."""

from __future__ import annotations

import click

from gotasks import __version__
from gotasks.cli.bench import bench
from gotasks.cli.brokers import brokers
from gotasks.cli.cancel import cancel
from gotasks.cli.check import check
from gotasks.cli.demo import demo
from gotasks.cli.enqueue import enqueue
from gotasks.cli.exits import EPILOG
from gotasks.cli.fatal import fatal
from gotasks.cli.group import Commands
from gotasks.cli.migrate import migrate
from gotasks.cli.new_broker import new_broker
from gotasks.cli.purge import purge
from gotasks.cli.queues import queues
from gotasks.cli.status import status
from gotasks.cli.worker import worker

__all__ = ["main"]


@click.group(
    cls=Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="gotasks")
def main() -> None:
    """Background tasks as chains of handlers, checkpointed after every step.

    \b
    A first run, with a module shop.py that has `app = App("redis://…")`:
      gotasks worker shop:app                        serve all queues that the app declares
      gotasks enqueue checkout order=42 --app shop:app --wait 10
      gotasks queues --app shop:app                  how much waits where
      gotasks fatal list --app shop:app              what failed, and why
      gotasks fatal retry TASK_ID --app shop:app     go on at the step that failed

    Commands find the broker by --app module:app (GOTASKS_APP), or by --broker URL (GOTASKS_BROKER_URL), which goes
    before what the app says. A URL with a password belongs into the environment: a command line is seen by everybody
    on the machine. Every option can be set by the variable that its help names; --json prints for programs.
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


for _command in (
    *(worker, enqueue, status, cancel, queues, fatal, purge, migrate),
    *(brokers, check, new_broker, bench, demo),
):
    main.add_command(_command)
