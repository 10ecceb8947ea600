"""The figures as a drawing: docs/cpu.svg, what each peer costs per piece of work, Envoy's cost being 1."""

from collections.abc import Iterator

from benchmarks.load.table import TITLES, price
from benchmarks.load.tally import Figure

PEERS = {"nginx": "#98a4b3", "haproxy": "#4478c2", "envoy": "#b06fc4", "sidecar": "#2f8a69"}
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 820, 190, 70, 64, 26
BAR, GAP = 11, 12


def draw(figures: dict[str, list[Figure]]) -> str:
    """A group of bars for every work that Envoy did too."""
    works = {work: of_work for work, of_work in figures.items() if any(one.peer == "envoy" for one in of_work)}
    height = TOP + len(works) * (len(PEERS) * BAR + GAP) + BOTTOM
    most = max(max(_costs(of_work).values()) for of_work in works.values())
    scale = (WIDTH - LEFT - RIGHT) / most
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        "<title>CPU per piece of work, as a multiple of Envoy's</title>",
        (
            "<style>"
            "svg{--ground:#fff;--ink:#1c2330;--soft:#5b6675;--line:#dfe4ea;"
            'font:11px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}'
            "@media (prefers-color-scheme:dark){svg{--ground:#12161d;--ink:#e6eaf0;--soft:#98a4b3;--line:#2a323d}}"
            "text{fill:var(--soft)}.title{fill:var(--ink);font-size:15px;font-weight:600}.ground{fill:var(--ground)}"
            ".own{fill:var(--ink);font-weight:600;font-size:10px}.line{stroke:var(--line)}"
            "</style>"
        ),
        f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
        '<text class="title" x="16" y="26">CPU per piece of work, Envoy = 1: less is better</text>',
    ]
    x = 16.0
    for peer, colour in PEERS.items():
        parts.append(f'<rect x="{x:.0f}" y="38" width="10" height="10" rx="2" fill="{colour}"/>')
        parts.append(f'<text x="{x + 15:.0f}" y="47">{peer}</text>')
        x += 30 + 7 * len(peer)
    for step in range(int(most * 2) + 1):
        at = LEFT + step / 2 * scale
        parts.append(f'<line class="line" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 6}" y2="{height - BOTTOM}"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - 8}" text-anchor="middle">{step / 2:g}</text>')
    y = float(TOP)
    for work, of_work in works.items():
        parts += _group(work, of_work, y, scale)
        y += len(PEERS) * BAR + GAP
    return "\n".join([*parts, "</svg>", ""])


def _group(work: str, of_work: list[Figure], y: float, scale: float) -> Iterator[str]:
    costs = _costs(of_work)
    middle = y + len(costs) * BAR / 2 + 4
    yield f'<text x="{LEFT - 8}" y="{middle:.1f}" text-anchor="end">{TITLES.get(work, work).partition(",")[0]}</text>'
    for figure in sorted((one for one in of_work if one.peer in costs), key=lambda one: [*PEERS].index(one.peer)):
        wide, colour = costs[figure.peer] * scale, PEERS[figure.peer]
        yield f'<rect x="{LEFT}" y="{y:.1f}" width="{wide:.1f}" height="{BAR - 1.5}" rx="1.5" fill="{colour}"/>'
        if figure.peer == "sidecar":
            yield (
                f'<text class="own" x="{LEFT + wide + 5:.1f}" y="{y + BAR - 2:.1f}">'
                f"{costs[figure.peer]:.2f} · {price(figure)}</text>"
            )
        y += BAR


def _costs(of_work: list[Figure]) -> dict[str, float]:
    """Each drawn peer's CPU as a multiple of Envoy's."""
    return {one.peer: 1.0 if one.peer == "envoy" else one.ratios["envoy"][0] for one in of_work if one.peer in PEERS}
