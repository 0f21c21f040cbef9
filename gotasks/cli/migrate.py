"""`gotasks migrate`: bring what a broker has set up on its server to what this version needs."""

from __future__ import annotations

import click
from click.core import ParameterSource

from gotasks.app import App
from gotasks.cli import exits
from gotasks.cli.options import app_option, broker_option, json_option
from gotasks.cli.output import plain, print_json
from gotasks.cli.target import find_app


@click.command(epilog=exits.EPILOG)
@click.argument("url", required=False)
@json_option
@app_option
@broker_option
@click.pass_context
def migrate(
    ctx: click.Context, *, url: str | None, as_json: bool, app_spec: str | None, broker: str | None
) -> None:
    """Make the tables of a broker, or change them to what this version of gotasks needs.

    \b
      gotasks migrate sqlite:///tasks.db
      GOTASKS_BROKER_URL=postgresql://owner@host/shop gotasks migrate

    URL may also be given by --broker, GOTASKS_BROKER_URL, or --app. Says what was done, or that there was nothing to
    do. It may run while workers work, and several times at once: one does it, the others wait. Most brokers have
    nothing to migrate.
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    given = ctx.get_parameter_source("broker") is ParameterSource.COMMANDLINE
    if url is not None and given and url != broker:
        raise click.UsageError("two brokers are named, by the argument and by --broker: name one")
    if url is None:
        app = find_app(app_spec, broker, needs_app=False)
    else:  # it goes before all else, so no app has to be imported
        app = App()
        app.use_broker(url)
    try:
        done = list(app.dispatch.broker.migrate())
        if as_json:
            print_json({"broker": app.broker, "done": done})
            return
        for each in done or ["nothing to do"]:
            click.echo(plain(f"{app.broker}: {each}"))
    finally:
        app.close()
