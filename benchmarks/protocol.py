"""How the harness talks to a script in another venv: a JSON object as its argument, one as its last line of output.

Standard library only, since both sides import it: the harness, and the scripts in the peers' venvs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

#: The folder with the package `benchmarks`: what the scripts need on their path.
ROOT = Path(__file__).resolve().parents[1]

#: Environment of the scripts and of the workers that they name: a Setup as JSON.
SETUP = "GOTASKS_BENCH_SETUP"

#: How long the job `nap` keeps its slot, in seconds.
NAP = 0.1

#: Seconds of CPU time that the jobs of these names take.
BURNS = {"burn-1": 0.001, "burn-20": 0.020}


class Unsupported(Exception):
    """The peer has no such thing. The message says what it lacks."""


class ScriptFailed(Exception):
    """A script ended without an answer, or answered with an error."""


def environment(setup: Mapping[str, Any]) -> dict[str, str]:
    """What scripts and workers see: the caller's environment without its own Python's, the checkout, the setup."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GOTASKS_", "PYTHON", "VIRTUAL_ENV"))
    }
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", SETUP: json.dumps(setup)}


def ask(
    python: Path, module: str, setup: Mapping[str, Any], command: Mapping[str, Any], *, timeout: float
) -> dict[str, Any]:
    """Run `module` with another Python and return its answer.

    Raises Unsupported if it says so, ScriptFailed on any other failure and after `timeout` seconds.
    """
    try:
        done = subprocess.run(
            [str(python), "-m", module, json.dumps(command)],
            cwd=python.parent,
            env=environment(setup),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise ScriptFailed(f"{module} {command['do']}: no answer in {timeout:.0f} s") from None
    lines = done.stdout.splitlines()
    try:
        answer = json.loads(lines[-1])
    except (IndexError, ValueError):
        answer = {"error": f"exit code {done.returncode}: {done.stderr[-2000:]}"}
    if "unsupported" in answer:
        raise Unsupported(answer["unsupported"])
    if "error" in answer:
        raise ScriptFailed(f"{module} {command['do']}: {answer['error']}")
    return dict(answer)


def reply(answer: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """The script's side: hand the command to `answer` and print what it returns, or what went wrong."""
    try:
        said = dict(answer(json.loads(sys.argv[1])))
    except Unsupported as error:
        said = {"unsupported": str(error)}
    except Exception:
        said = {"error": traceback.format_exc()}
    print(json.dumps(said), flush=True)
