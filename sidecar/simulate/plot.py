"""A simulation as a drawing: answers per second, stacked by what the users saw, above the breakers' states over time.

Plain SVG without a script, for browsers, documents and issues: it follows the reader's light or dark scheme, and what
colours say is also said in words (labels where there is room, `title` everywhere). Configurations that are compared
stand side by side on the same scales.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from math import floor, log10

from sidecar.base.units import show_duration
from sidecar.simulate.outcome import Result, stretches
from sidecar.simulate.tally import KINDS

_PANEL, _LEFT, _RIGHT, _GAP = 760, 56, 20, 28
_PLOT = _PANEL - _LEFT - _RIGHT
_TOP, _FAULTS, _RATES, _BAND, _ROW = 84, 22, 200, 18, 40
_CHARACTER = 6.4
"""A letter's width at 11 px, roughly."""

Stretch = tuple[float, float, str, str]
"""Begin, end, style class, words."""

_STYLE = """
svg{--ground:#fff;--ink:#1c2330;--soft:#5b6675;--line:#dfe4ea;--fault:#3b4656;
--good:#2f8a69;--help:#4478c2;--wait:#c4820e;--bad:#c43d3d;--on:#fff;
font:11px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;background:var(--ground)}
@media (prefers-color-scheme:dark){svg{--ground:#12161d;--ink:#e6eaf0;--soft:#98a4b3;--line:#2a323d;--fault:#c3ccd8;
--good:#358767;--help:#4473b8;--wait:#c08a1e;--bad:#c24848}}
text{fill:var(--soft)}.ink{fill:var(--ink)}.on{fill:var(--on)}.title{font-size:16px;font-weight:600}
.big{font-size:13px;font-weight:600}.ground{fill:var(--ground)}
.line{stroke:var(--line);fill:none}.phase{stroke:var(--soft);stroke-dasharray:2 3;fill:none}.fault{fill:var(--fault)}
.answered,.closed,.forced_closed{fill:var(--good)}.fallback{fill:var(--help)}.refused,.half_open{fill:var(--wait)}
.error,.open,.forced_open,.out{fill:var(--bad)}.end{text-anchor:end}.mid{text-anchor:middle}
"""


def draw(title: str, results: Sequence[Result]) -> str:
    """One drawing of all results."""
    peak = _ceiling(max((sum(point) / one.tally.step for one in results for point in one.tally.points), default=1.0))
    lanes = [_lanes(one) for one in results]
    names = list(dict.fromkeys(name for one in lanes for name in one))
    panels = [list(_panel(one, peak, names, found)) for one, found in zip(results, lanes, strict=True)]
    height = _TOP + _FAULTS + _RATES + 34 + _ROW * len(names) + 44
    width = _PANEL * len(results) + _GAP * (len(results) - 1)
    shown = escape(title)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<title>{shown}</title><style>{_STYLE}</style>",
        f'<rect class="ground" width="{width}" height="{height}"/>',
        f'<text class="ink title" x="{_LEFT}" y="28">{shown}</text>',
    ]
    for number, panel in enumerate(panels):
        parts += [f'<g transform="translate({number * (_PANEL + _GAP)} 0)">', *panel, "</g>"]
    return "\n".join([*parts, *_legend(height), "</svg>", ""])


def _lanes(result: Result) -> dict[str, list[Stretch]]:
    """The bands by name: breakers, then endpoints that were ejected."""
    lanes: dict[str, list[Stretch]] = {}
    reached = {upstream.name for upstream in result.network.upstreams.values() if upstream.tries}
    for guard in result.guards():
        if guard.changes or guard.name.partition("/")[0] in reached:
            mode = "" if guard.policy.mode == "enforce" else f" ({guard.policy.mode})"
            bands = [
                (begin, end, state.value, f"{state.value.replace('_', ' ')} {_span(end - begin)}")
                for begin, end, state in stretches(guard, result.seconds)
            ]
            lanes[f"breaker {guard.name}{mode}"] = bands
    for upstream in result.network.upstreams.values():
        for endpoint in upstream.endpoints:
            moments = [one[0] for one in upstream.ejections if one[1] == endpoint.address]
            if len(moments) % 2:
                moments.append(max(moments[-1], result.seconds))  # out to the end
            if moments:
                pairs = zip(moments[::2], moments[1::2], strict=True)
                lanes[f"{upstream.name} {endpoint.address}"] = [
                    (begin, end, "out", f"ejected {_span(end - begin)}") for begin, end in pairs
                ]
    return lanes


def _span(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 600 else show_duration(round(seconds))


def _panel(result: Result, peak: float, names: Sequence[str], lanes: Mapping[str, Sequence[Stretch]]) -> Iterator[str]:
    users = result.tally.whole()
    good = f"{users.good * 100_000 // max(1, users.requests) / 1000:g} % good"
    yield f'<text class="ink big" x="{_LEFT}" y="52">{escape(result.name)}: {good}</text>'
    yield f'<text x="{_LEFT}" y="68">{users.good:,} of {users.requests:,} requests got an answer they could use</text>'
    base = _TOP + _FAULTS
    yield from _troubles(result)
    yield from _scale(peak, base)
    yield from _rates(result, peak, base)
    yield from _phases(result, base)
    y = base + _RATES + 34
    for name in names:
        yield f'<text class="ink" x="{_LEFT}" y="{y + 12}">{escape(name)}</text>'
        yield f'<rect class="line" x="{_LEFT}" y="{y + 17}" width="{_PLOT}" height="{_BAND}"/>'
        for begin, end, kind, words in lanes.get(name, ()):
            yield from _block(result, begin, end, y + 17, _BAND, kind, words)
        y += _ROW


def _block(result: Result, begin: float, end: float, y: float, height: float, kind: str, words: str) -> Iterator[str]:
    """A labelled stretch of time; short ones stay visible."""
    x, width = _x(result, begin), max(1.5, _x(result, end) - _x(result, begin))
    tip = f"<title>{escape(words)}, from {begin:.3f} s</title>"
    yield f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}">{tip}</rect>'
    if len(words) * _CHARACTER + 8 < width:
        yield f'<text class="on mid" x="{x + width / 2:.1f}" y="{y + 13}">{escape(words)}</text>'


def _troubles(result: Result) -> Iterator[str]:
    right, told = -1.0, set()
    for begin, end, words in sorted(result.troubles):
        x, until = _x(result, begin), _x(result, min(end, result.seconds))
        tip = f"<title>{escape(words)}, {begin:g} s to {end:g} s</title>"
        width = max(2, until - x)
        yield f'<rect class="fault" x="{x:.1f}" y="{_TOP + 12}" width="{width:.1f}" height="4" rx="2">{tip}</rect>'
        if x > right and words not in told:
            told.add(words)
            room = int((_LEFT + _PLOT - x) / _CHARACTER)
            label = words if len(words) <= room else words[: max(1, room - 1)] + "…"
            yield f'<text x="{x:.1f}" y="{_TOP + 8}">{escape(label)}</text>'
            right = x + len(label) * _CHARACTER + 6


def _scale(peak: float, base: float) -> Iterator[str]:
    for step in range(5):
        y = base + _RATES * (1 - step / 4)
        yield f'<path class="line" d="M{_LEFT} {y}h{_PLOT}"/>'
        yield f'<text class="end" x="{_LEFT - 8}" y="{y + 4}">{peak * step / 4:,.4g}</text>'
    yield f'<text class="end" x="{_LEFT - 8}" y="{base - 8}">req/s</text>'


def _rates(result: Result, peak: float, base: float) -> Iterator[str]:
    """Stacked steps, good answers at the bottom."""
    step = result.tally.step
    points = [point for i, point in enumerate(result.tally.points) if i * step < result.seconds]
    floor_of = [0.0] * len(points)
    for kind, name in enumerate(KINDS):
        if not any(point[kind] for point in points):
            continue
        top = [low + point[kind] / step for low, point in zip(floor_of, points, strict=True)]
        there = _steps(result, top, peak, base)
        back = _steps(result, floor_of, peak, base)
        outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*there, *reversed(back)])
        total = sum(point[kind] for point in points)
        yield f'<polygon class="{name}" points="{outline}"><title>{name}: {total:,}</title></polygon>'
        floor_of = top


def _steps(result: Result, values: Sequence[float], peak: float, base: float) -> list[tuple[float, float]]:
    found = []
    for i, value in enumerate(values):
        y = base + _RATES * (1 - min(1.0, value / peak))
        end = min(result.seconds, (i + 1) * result.tally.step)
        found += [(_x(result, i * result.tally.step), y), (_x(result, end), y)]
    return found


def _phases(result: Result, base: float) -> Iterator[str]:
    bottom = base + _RATES
    right = -1.0
    for name, begin, end in result.phases:
        x = _x(result, begin)
        if begin > 0:
            yield f'<path class="phase" d="M{x:.1f} {base}V{bottom + 22}"/>'
        label = f"{show_duration(round(begin, 3))} {name}"
        if x > right:
            yield f'<text x="{x + 4:.1f}" y="{bottom + 18}">{escape(label)}</text>'
            right = x + len(label) * _CHARACTER + 8
        if end == result.seconds and right < _LEFT + _PLOT - 50:
            words = show_duration(round(end, 3))
            yield f'<text class="end" x="{_LEFT + _PLOT}" y="{bottom + 18}">{words}</text>'


def _legend(height: float) -> Iterable[str]:
    x, y = float(_LEFT), height - 22
    for kind, words in (
        ("answered", "answered; closed"),
        ("fallback", "fallback"),
        ("refused", "refused; half open"),
        ("error", "error; open, ejected"),
        ("fault", "fault in the scenario"),
    ):
        yield f'<rect class="{kind}" x="{x:.0f}" y="{y}" width="10" height="10" rx="2"/>'
        yield f'<text x="{x + 15:.0f}" y="{y + 9}">{words}</text>'
        x += 15 + len(words) * _CHARACTER + 16


def _x(result: Result, moment: float) -> float:
    return _LEFT + _PLOT * min(1.0, moment / result.seconds)


def _ceiling(value: float) -> float:
    """The next round figure above, for the scale."""
    if value <= 0:
        return 1.0
    power: float = 10.0 ** floor(log10(value))
    return next(power * step for step in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10) if power * step >= value)
