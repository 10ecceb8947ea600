"""The figures of simulated fleets as a table and a drawing: docs/fleet-scale.md and docs/fleet-scale.svg.

The page's prose is written by hand; what stands between its markers, and the drawing, is written here.
"""

from math import log10

import msgspec

from benchmarks.fleet_scale.price import Prices
from benchmarks.rig.machine import ROOT

RESULT = ROOT / "benchmarks/results/fleet_scale.json"
PAGE = ROOT / "docs/fleet-scale.md"
DRAWING = ROOT / "docs/fleet-scale.svg"
BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"
PER_SIDECAR = 0.2
"""Operations a second that a healthy sidecar may cost."""
PERMITS = 3


class Figures(msgspec.Struct, frozen=True):
    """One fleet's."""

    sidecars: int
    upstreams: int
    healthy_ops: float
    healthy_in: float
    healthy_out: float
    healthy_busy: float
    """Share of one core."""
    peak_ops: int
    """Of the worst second of the outage."""
    peak_out: int
    peak_busy: float
    votes: int
    asks: int
    restores: int
    failing_calls: int
    """That reached the failing upstream, trials included."""
    trial_calls: int
    most_trials: int
    """At once."""
    opened: tuple[float, float, float]
    """From the change to open until half, 99 % and all had adopted it; seconds."""
    closed: tuple[float, float, float]
    restored: float
    """From the emptied Redis until the page was back."""
    agree: int
    """Replicas that were closed and had the last record at the end."""
    per_second: list[int]
    busy_per_second: list[float]


class Report(msgspec.Struct, frozen=True):
    """A result file."""

    machine: dict[str, str | int]
    prices: Prices
    rows: list[Figures]


def met(report: Report) -> bool:
    """Whether every fleet kept what is promised."""
    return all(
        one.healthy_ops <= PER_SIDECAR * one.sidecars and one.most_trials <= PERMITS and one.agree == one.sidecars
        for one in report.rows
    )


def table(report: Report) -> str:
    """Markdown."""
    machine, prices = report.machine, report.prices
    heads = [f"{one.sidecars:,}" for one in report.rows]

    def row(title: str, cells: list[str]) -> str:
        return f"| {title} | " + " | ".join(cells) + " |"

    def each(show: object) -> list[str]:
        return [show(one) for one in report.rows]  # type: ignore[operator]

    lines = [
        (
            f"{report.rows[0].upstreams} upstreams each. {machine['cpu']}, {machine['date']}. Redis pays "
            f"{prices.beat:.0f} µs for a sync, {prices.command:.0f} µs for a command, {prices.tell:.1f} µs for each "
            "subscriber of a message (measured)."
        ),
        "",
        row("sidecars", heads),
        "|---|" + "---:|" * len(heads),
        row("**healthy**: operations/s", each(lambda one: f"{one.healthy_ops:,.1f}")),
        row("operations/s per sidecar", each(lambda one: f"{one.healthy_ops / one.sidecars:.3f}")),
        row("to Redis, from Redis", each(lambda one: f"{_bytes(one.healthy_in)}/s, {_bytes(one.healthy_out)}/s")),
        row("of one core", each(lambda one: f"{one.healthy_busy:.2%}")),
        row("**failing for all**: operations in the worst second", each(lambda one: f"{one.peak_ops:,}")),
        row("from Redis in the worst second", each(lambda one: _bytes(one.peak_out))),
        row("of one core in the worst second", each(lambda one: f"{one.peak_busy:.1%}")),
        row("open: half, 99 %, all know", each(lambda one: _spread(one.opened))),
        row("closed: half, 99 %, all know", each(lambda one: _spread(one.closed))),
        row("votes", each(lambda one: f"{one.votes:,}")),
        row("asks for leases", each(lambda one: f"{one.asks:,}")),
        row("calls that reached the failing upstream", each(lambda one: f"{one.failing_calls:,}")),
        row("trial calls, most at once", each(lambda one: f"{one.trial_calls}, {one.most_trials}")),
        row("**emptied while open**: restored after", each(lambda one: f"{one.restored * 1000:,.0f} ms")),
        row("restores sent", each(lambda one: f"{one.restores:,}")),
    ]
    return "\n".join(lines)


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _spread(cuts: tuple[float, float, float]) -> str:
    return ", ".join(f"{cut * 1000:,.0f}" for cut in cuts) + " ms"


def page(text: str, report: Report) -> str:
    """The page with its figures."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(report)}\n{END}{after}"


def write_pages(report: Report) -> None:
    """Write both anew."""
    PAGE.write_text(page(PAGE.read_text(), report))
    DRAWING.write_text(draw(report))


# ---------------------------------------------------------------------------------------------------- the drawing

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 380, 60, 120, 56, 44
COLOURS = ("#7a8896", "#2f8a69", "#4478c2", "#c43d3d", "#c4820e")
MARKS = ((90, "fails for all"), (130, "Redis emptied"), (190, "well again"))


def draw(report: Report) -> str:
    """Redis operations a second over the story, one line per fleet, on a logarithmic scale."""
    seconds = max(len(one.per_second) for one in report.rows)
    decades = max(1, int(log10(max(max(one.per_second) for one in report.rows))) + 1)

    def x(second: float) -> float:
        return LEFT + second / seconds * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - log10(max(1.0, value)) / decades * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">',
        "<title>Redis operations a second, fleets of several sizes</title>",
        (
            "<style>"
            "svg{--ground:#fff;--ink:#1c2330;--soft:#5b6675;--line:#dfe4ea;"
            'font:11px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}'
            "@media (prefers-color-scheme:dark){svg{--ground:#12161d;--ink:#e6eaf0;--soft:#98a4b3;--line:#2a323d}}"
            "text{fill:var(--soft)}.ink{fill:var(--ink);font-size:15px;font-weight:600}.ground{fill:var(--ground)}"
            ".line{stroke:var(--line)}.mark{stroke:var(--soft);stroke-dasharray:2 3}.plot{fill:none;stroke-width:1.5}"
            "</style>"
        ),
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="ink" x="{LEFT}" y="24">Redis operations a second, {report.rows[0].upstreams} upstreams</text>',
    ]
    for decade in range(decades + 1):
        at = y(10**decade)
        parts.append(f'<line class="line" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{10**decade:,}</text>')
    for second, words in MARKS:
        at = x(second)
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 8}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{at + 4:.1f}" y="{TOP - 2}">{words}</text>')
    parts += [
        f'<text x="{x(second):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{second} s</text>'
        for second in range(0, seconds + 1, 30)
    ]
    for number, one in enumerate(report.rows):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{x(at + 0.5):.1f},{y(value):.1f}" for at, value in enumerate(one.per_second))
        parts.append(f'<polyline class="plot" stroke="{colour}" points="{points}"/>')
        last = y(one.per_second[-1])
        parts.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{last + 4:.1f}" style="fill:{colour}">{one.sidecars:,} sidecars</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
