"""The report: results as Markdown tables; for each server the figures, our ratios to each peer and to the ceilings, and
what was measured of gotasks alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.catalogue import PEERS
from benchmarks.ours import OURS as ALONE
from benchmarks.results import CEILINGS, Results, Spread
from benchmarks.workload import Figure, Workload
from benchmarks.workloads import WORKLOADS

#: Whose ratios are shown.
OURS = "gotasks"

#: What peers do too, and is shown with what is measured of us alone.
_SHOWN = ("drain", "drain-2", "latency", "half-load", "memory")

#: Behind a ratio.
_TIMES = "\N{MULTIPLICATION SIGN}"


def markdown(results: Results) -> str:
    """The whole page, from its second heading on."""
    servers = [line for server in results.servers() for line in _server(results, server)]
    own = ["## gotasks alone", "", own_table(results), ""] if _own_figures(results) else []
    return "\n".join([*servers, *own, *_about(results)])


def own_table(results: Results) -> str:
    """How our own costs grow: a column a server, and a row a figure."""
    servers = results.servers()
    versions = results.about.get("servers", {})
    rows = [
        [each.title, *(_shown(results.spread(server, OURS, each.name), each) for server in servers)]
        for each in _own_figures(results)
    ]
    head = ["", *(f"{server} {versions.get(server, '').partition(' ')[0]}".rstrip() for server in servers)]
    return "\n".join(_table(head, rows)).rstrip()


def _own_figures(results: Results) -> list[Figure]:
    """Those that we have; none where it is only what peers have too."""
    if not any(each.workload in {one.name for one in ALONE} and each.values for each in results.results):
        return []
    shown = [each for each in WORKLOADS if each in ALONE or each.name in _SHOWN]
    return [
        figure
        for workload in shown
        for figure in workload.figures
        if any(results.by_round(server, OURS, figure.name) for server in results.servers())
    ]


def _server(results: Results, server: str) -> Iterator[str]:
    figures = _figures(results, server, [each for each in WORKLOADS if each not in ALONE])
    measured = _measured(results, server, figures)
    yield f"## {server} {results.about.get('servers', {}).get(server, '')}".rstrip()
    yield ""
    if measured:
        yield "Medians of the rounds (lowest to highest)."
        yield ""
        yield from _table(
            ["system", *(figure.title for figure in figures)],
            [
                [
                    label(server, peer),
                    *(_shown(results.spread(server, peer, each.name), each) for each in figures),
                ]
                for peer in measured
            ],
        )
    if OURS in measured and len(measured) > 1:
        yield from _ratios(results, server, figures, measured)
    yield from _ceilings(results, server, figures)
    yield from _notes(results, server)


def _figures(results: Results, server: str, workloads: Sequence[Workload]) -> list[Figure]:
    """Those that somebody has."""
    return [
        figure
        for workload in workloads
        for figure in workload.figures
        if any(results.by_round(server, peer, figure.name) for peer in results.peers(server))
    ]


def _measured(results: Results, server: str, figures: Sequence[Figure]) -> list[str]:
    """The peers that have a figure."""
    return [
        peer
        for peer in results.peers(server)
        if any(results.by_round(server, peer, each.name) for each in figures)
    ]


def _ratios(results: Results, server: str, figures: list[Figure], measured: list[str]) -> Iterator[str]:
    """How many times better we are than each, round by round."""
    yield f"Times that {OURS} is better, in the same round:"
    yield ""
    rows = []
    for peer in measured:
        ratios = [results.ratio(server, OURS, peer, each.name, lower=each.lower) for each in figures]
        if peer != OURS:
            rows.append([label(server, peer), *map(_times, ratios)])
    yield from _table([f"{OURS} beside", *(figure.title for figure in figures)], rows)


def _ceilings(results: Results, server: str, figures: list[Figure]) -> Iterator[str]:
    """What the bare client does, and our rates as parts of it."""
    found = dict.fromkeys(name for each in results.of(server, CEILINGS) for name in each.values)
    rates = [figure for figure in figures if not figure.lower and results.spread(server, OURS, figure.name)]
    if not found:
        return
    yield "Ceilings: loops of the bare client, and our rates as multiples of them."
    yield ""
    rows = []
    for name in found:
        ceiling = results.spread(server, CEILINGS, name)
        ours = (results.spread(server, OURS, figure.name) for figure in rates)
        assert ceiling is not None
        rows.append(
            [
                name,
                _number(ceiling, 0),
                *(f"{mine.median / ceiling.median:.2f} {_TIMES}" for mine in ours if mine is not None),
            ]
        )
    yield from _table(["loop", "per second", *(figure.title for figure in rates)], rows)


def _notes(results: Results, server: str) -> Iterator[str]:
    """How a peer is configured, what it doesn't have, what failed, and what ran twice."""
    lines: list[str] = []
    for name in (CEILINGS, *results.peers(server)):
        lines += [f"{peer.name}: {peer.note}." for peer in PEERS if peer.key == (server, name) and peer.note]
        lacking: dict[str, dict[str, None]] = {}
        for each in results.of(server, name):
            if each.unsupported:
                lacking.setdefault(each.unsupported, {})[each.workload] = None
        lines += [f"{name}, {', '.join(workloads)}: {reason}." for reason, workloads in lacking.items()]
        for each in results.of(server, name):
            if each.error:
                last = each.error.strip().splitlines()[-1]
                lines.append(f"{name}, {each.workload}: **failed** in round {each.round}: {last}")
            if each.repeats:
                lines.append(
                    f"{name}, {each.workload}: {each.repeats} steps started again in round {each.round}."
                )
    if lines:
        yield from (f"- {line}" for line in lines)
        yield ""


def _about(results: Results) -> Iterator[str]:
    yield "## About this run"
    yield ""
    for name, value in results.about.items():
        if isinstance(value, (str, int)):
            yield f"- {name}: {value}"
    yield ""


def label(server: str, name: str) -> str:
    """A peer as the catalogue shows it; its name if it is no longer there."""
    return next((peer.label for peer in PEERS if peer.key == (server, name)), name)


def _table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    for cells in (head, ["---", *["---:"] * (len(head) - 1)], *rows):
        yield f"| {' | '.join(cells)} |"
    yield ""


def _shown(spread: Spread | None, figure: Figure) -> str:
    return "" if spread is None else _number(spread, figure.digits)


def _number(spread: Spread, digits: int) -> str:
    median, low, high = (f"{value:,.{digits}f}".replace(",", "\u202f") for value in _values(spread))
    return median if low == high else f"{median} ({low} to {high})"


def _times(spread: Spread | None) -> str:
    if spread is None:
        return ""
    median, low, high = (f"{value:.2f}" for value in _values(spread))
    return f"{median} {_TIMES}" if low == high else f"{median} {_TIMES} ({low} to {high})"


def _values(spread: Spread) -> tuple[float, float, float]:
    return spread.median, spread.low, spread.high
