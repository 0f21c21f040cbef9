"""The command: `python -m benchmarks --servers sqlite,postgres --peers gotasks,pgqueuer-10 --workloads drain`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.catalogue import CLIENTS, SERVERS, Peer, chosen
from benchmarks.chart import svg
from benchmarks.measure import Bench
from benchmarks.page import publish
from benchmarks.plan import plan, workloads
from benchmarks.protocol import ScriptFailed
from benchmarks.report import markdown
from benchmarks.results import Result, Results
from benchmarks.venvs import Venvs
from benchmarks.workload import Workload
from benchmarks.workloads import WORKLOADS

#: Where venvs are kept, and the SQLite file; not in /tmp, which may be memory.
CACHE = "~/.cache/gotasks-bench"


def names(text: str) -> list[str]:
    """A list between commas."""
    return [name for name in text.split(",") if name]


def parser() -> argparse.ArgumentParser:
    """The options; a URL can be given by the environment too, as in GOTASKS_BENCH_REDIS."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure gotasks beside its peers: same work, one place, round after round.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    servers = ",".join(SERVERS)
    made.add_argument("--servers", type=names, help=f"of {servers}; default: all that answer")
    made.add_argument("--peers", type=names, default=[], help="by name; default: all")
    work = ",".join(workload.name for workload in WORKLOADS)
    made.add_argument("--workloads", type=names, default=[], help=f"of {work}; default: all")
    made.add_argument(
        "--rounds", type=int, default=1, help="with 3 there are medians, and it takes three times as long"
    )
    made.add_argument("--tasks", type=int, default=20_000, help="of a drain; slow peers get fewer")
    made.add_argument(
        "--no-ceilings", dest="ceilings", action="store_false", help="without bare client loops"
    )
    made.add_argument("--json", type=Path, help="write the results here")
    made.add_argument("--markdown", type=Path, help="write the tables here; they are printed anyway")
    made.add_argument("--chart", type=Path, help="draw a picture, as SVG")
    made.add_argument("--docs", type=Path, help="renew tables and picture in the pages of this folder")
    made.add_argument(
        "--from-json",
        type=Path,
        nargs="+",
        help="measure nothing: take the results in these files, all together",
    )
    made.add_argument("--note", help="for readers of the results, such as what else the machine was doing")
    made.add_argument("--list", action="store_true", help="say what would be measured")
    cache = os.environ.get("GOTASKS_BENCH_CACHE", CACHE)
    made.add_argument("--cache", type=Path, default=Path(cache), help="for the venvs and the SQLite file")
    for server, url in {
        "sqlite": "sqlite:///CACHE",
        "postgres": "postgresql://postgres@127.0.0.1:5432/postgres",
        "redis": "redis://127.0.0.1:6379/13",
        "rabbitmq": "amqp://guest:guest@127.0.0.1:5672/%2F",
    }.items():
        made.add_argument(f"--{server}", default=os.environ.get(f"GOTASKS_BENCH_{server.upper()}", url))
    return made


def main() -> int:
    """Measure and tell. Returns the exit code: 0, 1 if a measurement failed, 2 if nothing could be measured."""
    options = parser().parse_args()
    try:
        if options.from_json:
            write(options, Results.together([Results.load(file) for file in options.from_json]))
            return 0
        work = workloads(options.workloads)
        peers = chosen(options.servers or list(SERVERS), options.peers)
        if options.list:
            print(*(step.what for step in plan(peers, work, 1, ceilings=options.ceilings)), sep="\n")
            return 0
        results = run(options, peers, work)
        write(options, results)
    except (ValueError, ScriptFailed, RuntimeError) as error:
        tell(str(error))
        return 2
    return 1 if results.failures() else 0


def write(options: argparse.Namespace, results: Results) -> None:
    """Print the tables, and write what was asked for. Raises ValueError if there is no picture, or no place for it."""
    if options.note:
        results = Results({**results.about, "note": options.note}, results.results)
    tables = markdown(results)
    print(tables)
    if options.json:
        results.save(options.json)
    if options.markdown:
        options.markdown.write_text(tables)
    if options.chart:
        options.chart.write_text(svg(results))
    if options.docs:
        publish(options.docs, results)


def run(options: argparse.Namespace, peers: list[Peer], work: list[Workload]) -> Results:
    """Carry out the plan; after Ctrl-C what there is. Raises ScriptFailed and RuntimeError if it can't begin."""
    cache = options.cache.expanduser().absolute()
    urls = {server: getattr(options, server) for server in SERVERS}
    urls["sqlite"] = urls["sqlite"].replace("CACHE", str(cache))
    venvs = Venvs(cache, tell)
    bench = Bench(venvs, urls, options.tasks)
    with ExitStack() as stack:
        servers: dict[str, str] = {}
        for server in dict.fromkeys(peer.server for peer in peers):
            try:
                servers[server] = bench.reset(server)[1]
                stack.callback(bench.remove, server)
            except ScriptFailed as error:
                if options.servers:
                    raise
                tell(f"without {server}: {str(error).strip().splitlines()[-1]}")
        peers = [peer for peer in peers if peer.server in servers]
        for peer in peers:
            venvs.python(peer.packages)  # now, so that no installation runs beside a measurement
        steps = list(plan(peers, work, options.rounds, ceilings=options.ceilings))
        done: list[Result] = []
        try:
            for number, step in enumerate(steps, 1):
                done.append(bench.do(step))
                tell(f"[{number}/{len(steps)}] {step}: {said(done[-1])}")
        except KeyboardInterrupt:
            tell("interrupted")
        return Results(about(options, servers, peers, venvs), done)


def about(
    options: argparse.Namespace, servers: dict[str, str], peers: list[Peer], venvs: Venvs
) -> dict[str, object]:
    """What a reader has to know to measure the same."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "rounds": options.rounds,
        "tasks": options.tasks,
        "servers": servers,
        "packages": {peer.packages[0]: venvs.versions(peer.packages) for peer in peers},
        "clients": list(CLIENTS),
    }


def said(result: Result) -> str:
    """One line of a result."""
    if result.error:
        return f"FAILED: {result.error.strip()}"
    if result.unsupported:
        return f"not there: {result.unsupported}"
    return ", ".join(f"{name} {value:,.2f}" for name, value in result.values.items())


def tell(text: str) -> None:
    """Say how it goes, beside the tables."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
