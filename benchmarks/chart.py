"""The chart: what a worker drains, as bars of an SVG picture; one group a server, and each has a scale of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from benchmarks.report import OURS, label
from benchmarks.results import Results

#: What is shown, and what is said of it.
_FIGURE = "drain"
_TITLE = "Tasks a second that one worker process drains"

#: In pixels where there is room for them; on a phone the picture shrinks to about two thirds.
_WIDTH = 560
_MARGIN = 16
_BAR = 20
_ROW = 42
_GROUP = 60
_HEAD = 66

#: Names of servers, for people.
_SERVERS = {"sqlite": "SQLite", "postgres": "PostgreSQL", "redis": "Redis", "rabbitmq": "RabbitMQ"}

_STYLE = """
  text { font: 15px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1f2328 }
  .title { font-size: 18px; font-weight: 600 }
  .server { font-size: 16px; font-weight: 600 }
  .quiet { fill: #59636e; font-size: 13.5px }
  .ours { font-weight: 600 }
  .card { fill: #ffffff; stroke: #d1d9e0 }
  .bar { fill: #8c959f }
  .bar.amo { fill: #d1d9e0 }
  .bar.ours { fill: #0b7a5c }
  .range { stroke: #1f2328; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .quiet { fill: #9198a1 }
    .card { fill: #0d1117; stroke: #3d444d }
    .bar { fill: #656c76 }
    .bar.amo { fill: #3d444d }
    .bar.ours { fill: #2ea886 }
    .range { stroke: #f0f6fc }
  }
"""


@dataclass(frozen=True)
class _Bar:
    """One system."""

    name: str
    median: float
    low: float
    high: float

    @property
    def kind(self) -> str:
        """Its class in the style."""
        if self.name.partition("-")[0] == OURS:
            return "ours"
        return "amo" if "(amo)" in self.name else ""


def svg(results: Results) -> str:
    """The picture. Raises ValueError if nobody has drained anything."""
    groups = [(server, _bars(results, server)) for server in results.servers()]
    groups = [(server, bars) for server, bars in groups if bars]
    if not groups:
        raise ValueError("nothing to draw: there is no drain in these results")
    height = _HEAD + sum(_GROUP + _ROW * len(bars) for _, bars in groups) + _MARGIN
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    spoken = escape(f"{_TITLE}. {_spoken(groups)}")
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{spoken}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>',
        _text(_MARGIN, 32, _TITLE, "title"),
        _text(
            _MARGIN, 55, "no-op jobs, 10 slots; gotasks-100: 100. Pale (amo): a crash loses tasks", "quiet"
        ),
    ]
    top = _HEAD
    for server, bars in groups:
        lines += _group(server, results.about.get("servers", {}).get(server, ""), bars, top)
        top += _GROUP + _ROW * len(bars)
    return "\n".join([*lines, "</svg>", ""])


def _bars(results: Results, server: str) -> list[_Bar]:
    """Best first."""
    found = []
    for peer in results.peers(server):
        spread = results.spread(server, peer, _FIGURE)
        if spread is not None:
            found.append(_Bar(label(server, peer), spread.median, spread.low, spread.high))
    return sorted(found, key=lambda bar: -bar.median)


def _group(server: str, version: str, bars: list[_Bar], top: int) -> Iterator[str]:
    room = _WIDTH - 2 * _MARGIN
    longest = max(bar.high for bar in bars)
    name = f"{_SERVERS.get(server, server)} {version.partition(' ')[0]}".strip()
    yield _text(_MARGIN, top + 34, name, "server")
    for number, bar in enumerate(bars):
        y = top + _GROUP + number * _ROW
        long = max(2.0, bar.median / longest * room)
        yield _text(_MARGIN, y + 4, bar.name, bar.kind if bar.kind == "ours" else "quiet")
        yield _text(
            _WIDTH - _MARGIN,
            y + 4,
            f"{bar.median:,.0f}".replace(",", "\u202f"),
            bar.kind or "plain",
            end=True,
        )
        yield f'<rect class="bar {bar.kind}" x="{_MARGIN}" y="{y + 10}" width="{long:.1f}" height="{_BAR - 8}" rx="2"/>'
        if bar.high > bar.low:
            low, high = (_MARGIN + value / longest * room for value in (bar.low, bar.high))
            middle = y + 10 + (_BAR - 8) / 2
            yield f'<line class="range" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>'


def _text(x: int, y: int, text: str, kind: str, *, end: bool = False) -> str:
    anchor = ' text-anchor="end"' if end else ""
    return f'<text class="{kind}" x="{x}" y="{y}"{anchor}>{escape(text)}</text>'


def _spoken(groups: list[tuple[str, list[_Bar]]]) -> str:
    """For who doesn't see it."""
    return "; ".join(
        f"{server}: {', '.join(f'{bar.name} {bar.median:,.0f}' for bar in bars)}" for server, bars in groups
    )
