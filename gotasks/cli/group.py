"""Commands: a click group whose errors are one sentence, whose exit codes mean something, and that hides secrets."""

from __future__ import annotations

import difflib
import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

from gotasks.cli import exits
from gotasks.cli.output import plain
from gotasks.errors import GotasksError

_LOGIN = re.compile(r"://([^\s'\"]*)@")
_SECRET = re.compile(r"([?&][^=&\s]*(?:pass|secret|token|key)[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE)


class Commands(click.Group):
    """The top of the command line. Every error of every command ends here."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 - as in click
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(
                errors="backslashreplace"
            )  # an arrow must not end a worker in an old locale
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader (`| head`) has gone; what is left must not be flushed into nothing once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(exits.FAILED)
        except Exception as error:
            sys.exit(report(error))
        sys.exit(code if isinstance(code, int) else exits.OK)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not ctx.resilient_parsing and self.get_command(ctx, name) is None and not name.startswith("-"):
            close = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"'{ctx.command_path} --help' lists all."
            raise click.UsageError(f"there is no command {name!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)


def report(error: Exception) -> int:
    """Say on stderr what went wrong, and return the exit code."""
    if os.environ.get("GOTASKS_DEBUG", "0") not in ("", "0"):
        click.echo(scrubbed("".join(traceback.format_exception(error))), err=True, nl=False)
    if isinstance(error, click.Abort):
        click.echo("Aborted.", err=True)
        return 130 if isinstance(error.__cause__, KeyboardInterrupt) else exits.FAILED
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        more = f" ('{context.command_path} --help' tells more)" if context is not None else ""
        complain(f"{_message(error).rstrip('.')}{more}")
        return error.exit_code
    if isinstance(error, GotasksError):
        complain(str(error))
        return exits.exit_code(error)
    what = f"{type(error).__name__}: {error}".strip().rstrip(":")
    complain(f"unexpected {what} (GOTASKS_DEBUG=1 shows where)")
    return exits.BUG


def _message(error: click.ClickException) -> str:
    """What click says, but of a bad value where it comes from: the option, or the variable that set it."""
    if type(error) is not click.BadParameter or error.ctx is None or error.param is None:
        return error.format_message()
    source = error.ctx.get_parameter_source(error.param.name or "")
    if source is ParameterSource.ENVIRONMENT and isinstance(error.param.envvar, str):
        return f"{error.param.envvar}: {error.message}"
    option = isinstance(error.param, click.Option)
    return f"{error.param.opts[-1] if option else error.param.human_readable_name}: {error.message}"


def complain(message: str) -> None:
    """Say on stderr what is wrong, without passwords."""
    click.echo(f"Error: {plain(scrubbed(message))}", err=True)


def scrubbed(text: str) -> str:
    """The text without the passwords of URLs in it."""
    return _SECRET.sub(r"\1***", _LOGIN.sub(_login, text))


def _login(match: re.Match[str]) -> str:
    user, colon, password = match[1].partition(":")
    if not colon or password == "***":  # noqa: S105 - it is what stands for one
        return match[0]
    return f"://{user}:***@"
