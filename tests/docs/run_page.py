"""Runs the programs of one page, in the working folder: `python run_page.py < steps.json`.

A step is [kind, text, …]. All programs and commands of a page run in this process, one after the other, which is
cheaper than one for each; its workers are processes of their own, as they are for a reader.
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from gotasks import cli

workers: list[subprocess.Popen[str]] = []


def file(name: str, code: str) -> None:
    """Write a file that the page shows."""
    Path(name).write_text(code, encoding="utf-8")


def tests() -> None:
    """Have pytest run the page's tests."""
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], check=True)


def program(where: str, line: int, code: str) -> None:
    """Run it. A traceback names the page and the line there."""
    exec(compile("\n" * (line - 1) + code, where, "exec"), {"__name__": "__main__"})  # noqa: S102 - our own page


def command(line: str, code: int) -> None:
    """Run `gotasks` to its end."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            cli.main(shlex.split(line, comments=True)[1:], prog_name="gotasks")
    except SystemExit as end:
        if end.code != code:
            raise SystemExit(f"{line}: exit code {end.code}, not {code}\n{told.getvalue()}") from None


def worker(line: str) -> None:
    """Start one, which works until the page ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gotasks", *shlex.split(line, comments=True)[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    workers.append(process)
    assert process.stderr is not None
    told = []
    for said in process.stderr:
        told.append(said)
        if "worker started" in said:
            threading.Thread(target=_drain, args=(process.stderr,), daemon=True).start()
            return
    raise SystemExit(f"{line}: it ended with {process.wait()}\n{''.join(told)}")


def _drain(pipe: IO[str]) -> None:
    for _ in pipe:
        pass


def main() -> None:
    """All steps; at the end each worker has to stop cleanly."""
    sys.path[0] = str(Path.cwd())
    kinds: dict[str, Callable[..., None]] = {
        "file": file,
        "tests": tests,
        "program": program,
        "command": command,
        "worker": worker,
    }
    steps: list[list[Any]] = json.load(sys.stdin)
    try:
        for kind, *values in steps:
            kinds[kind](*values)
            sys.stdout.flush()
    finally:
        for process in workers:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    if any(process.returncode for process in workers):
        raise SystemExit("a worker didn't stop cleanly")


if __name__ == "__main__":
    main()
