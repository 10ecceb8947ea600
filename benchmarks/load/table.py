"""The figures as a Markdown table: one row a peer, one table a work, and the verdict against the aims."""

from benchmarks.load.tally import REFERENCES, Figure

AIMS: dict[str, dict[str, float]] = {
    "get-1k": {"envoy": 0.55, "haproxy": 2.1},
    "post-1k": {"envoy": 0.55, "haproxy": 2.1},
    "get-64k": {"envoy": 0.60, "haproxy": 1.4},
    "chunked-16x1k": {"envoy": 0.8, "haproxy": 2.0},
    "get-1k-tls": {"envoy": 0.7},
    "get-1g": {"envoy": 1.25, "haproxy": 0.8},
    "put-1g": {"envoy": 1.25, "haproxy": 0.8},
    "websocket": {"envoy": 0.7, "haproxy": 1.3},
    "tcp": {"envoy": 0.7, "haproxy": 1.3},
}
"""The most that sidecar may cost, as a multiple of each reference peer's CPU."""

TITLES = {
    "get-1k": "GET 1 KiB, keep-alive",
    "post-1k": "POST 1 KiB, keep-alive",
    "get-64k": "GET 64 KiB",
    "chunked-16x1k": "chunked answer, 16 × 1 KiB",
    "get-1k-tls": "GET 1 KiB by TLS 1.3, keep-alive",
    "get-64k-tls": "GET 64 KiB by TLS 1.3",
    "handshake-tls": "GET 1 KiB by TLS 1.3, a full handshake each",
    "get-1g": "GET 1 GiB",
    "get-1g-tls": "GET 1 GiB by TLS 1.3",
    "put-1g": "PUT 1 GiB",
    "websocket": "WebSocket, 1 KiB each way",
    "tcp": "TCP tunnel, 1 KiB each way",
}


def summary(figures: dict[str, list[Figure]], peer: str = "sidecar") -> str:
    """One row a work: `peer` against each reference and its aim."""
    lines = [
        "| work | CPU | × Envoy (at most) | × HAProxy (at most) | within |",
        "|---|---|---|---|---|",
    ]
    for work, of_work in figures.items():
        own = next((figure for figure in of_work if figure.peer == peer), None)
        if own is None:
            continue
        cells, verdicts = [], []
        for reference in REFERENCES:
            aim = AIMS.get(work, {}).get(reference)
            if reference not in own.ratios or aim is None:
                cells.append("–")
                continue
            cells.append(f"{own.ratios[reference][0]:.2f} ({aim:.2f})")
            verdicts.append(own.ratios[reference][0] <= aim)
        verdict = "invalid: errors" if not own.valid else "–" if not verdicts else "yes" if all(verdicts) else "no"
        lines.append(f"| {TITLES.get(work, work)} | {price(own)} | {cells[0]} | {cells[1]} | {verdict} |")
    return "\n".join(lines)


def tables(figures: dict[str, list[Figure]]) -> str:
    """One table a work with every peer in it."""
    parts = []
    for work, of_work in figures.items():
        parts += [
            f"### {TITLES.get(work, work)}",
            "",
            "| peer | CPU (lowest–highest) | × Envoy | × HAProxy | a second | p50 ms | p99 ms | errors |",
            "|---|---|---|---|---|---|---|---|",
        ]
        parts += [_row(figure) for figure in of_work]
        parts.append("")
    return "\n".join(parts)


def _row(figure: Figure) -> str:
    low, high = _number(figure, figure.cpu_us_low), _number(figure, figure.cpu_us_high)
    spread = f"{price(figure)} ({low}–{high})"
    ratios = [
        f"{figure.ratios[reference][0]:.2f} ({figure.ratios[reference][1]:.2f}–{figure.ratios[reference][2]:.2f})"
        if reference in figure.ratios
        else "1"
        if reference == figure.peer
        else "–"
        for reference in REFERENCES
    ]
    errors = "0" if figure.valid else f"**{figure.errors}: invalid**"
    speed = f"{figure.per_second:,.0f}" if figure.unit != "GiB" else f"{figure.per_second:.2f} GiB"
    latencies = [f"{value / 1000:.2f}" for value in (figure.p50_us, figure.p99_us)]
    return f"| {' | '.join([figure.peer, spread, *ratios, speed, *latencies, errors])} |"


def price(figure: Figure) -> str:
    """Its CPU per piece of work, for people."""
    return f"{_number(figure, figure.cpu_us)} {'s/GiB' if figure.unit == 'GiB' else f'µs/{figure.unit}'}"


def _number(figure: Figure, microseconds: float) -> str:
    return f"{microseconds / 1e6:.2f}" if figure.unit == "GiB" else f"{microseconds:.1f}"
