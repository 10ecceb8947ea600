"""Writes the files that are generated from the code; with --check, only says which of them are stale.

One table: a path and what its content is made from. `make generate` writes, `make check` compares.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))  # its neighbours, however this is run


def metrics() -> str:
    """The reference of every series, from the table that declares them."""
    from sidecar.runtime.series import TABLE

    lines = [
        "# Metrics",
        "",
        "Generated from `sidecar/runtime/series.py` by `make generate`. A series appears in `/metrics` once the part",
        "that counts it is in use. *Merge* says how the gauges of several workers become one; counters and histograms",
        "add up.",
        "",
    ]
    for metric in TABLE:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
        facts = [metric.cell.kind, f"labels: {labels}"]
        if metric.unit:
            facts.append(f"unit: {metric.unit}")
        if metric.cell.kind == "gauge":
            facts.append(f"merge: {metric.merge}")
        facts.append(f"at most {metric.limit} series")
        lines += [f"## {metric.name}", "", metric.help, "", "; ".join(facts), ""]
        if metric.bounds:
            lines += ["Buckets: " + " ".join(f"{bound:g}" for bound in metric.bounds) + " +Inf", ""]
    return "\n".join(lines)


def breaker() -> str:
    """The breaker's states, from the table that it runs on."""
    from sidecar.machines.breaker_states import AUTOMATIC, BY_ORDER, MEANING, BreakerState, Reason
    from sidecar.machines.diagram import mermaid

    reasons = [
        f"| {change[0]} | {change[1]} | "
        f"{', '.join(f'`{reason}`' for reason in AUTOMATIC.get(change, ()) + BY_ORDER.get(change, ()))} |"
        for change in AUTOMATIC | BY_ORDER
    ]
    return "\n".join(
        [
            "# The circuit breaker's states",
            "",
            "Generated from `sidecar/machines/breaker_states.py` by `make generate`. The rules behind the reasons",
            "stand at the head of `sidecar/machines/breaker.py`, the settings in [configuration.md](configuration.md).",
            "",
            *(f"* **{state}**: {MEANING[state]}" for state in BreakerState),
            "",
            "On its own:",
            "",
            "```mermaid",
            mermaid(AUTOMATIC, BreakerState.CLOSED),
            "```",
            "",
            "By order of someone, who opens, closes or resets it or sets its mode to disabled:",
            "",
            "```mermaid",
            mermaid(BY_ORDER, BreakerState.CLOSED),
            "```",
            "",
            "`sidecar_breaker_transitions_total` counts each change with these words:",
            "",
            "| from | to | reason |",
            "|---|---|---|",
            *reasons,
            f"| any | any other | `{Reason.SHARED}`: replicas that share the state agreed on it |",
            "",
        ]
    )


def recovery() -> str:
    """Recovery's stages, from the table that it runs on."""
    from sidecar.machines.diagram import mermaid
    from sidecar.machines.recovery.stages import CHANGES, MEANING, Stage

    reasons = [
        f"| {old} | {new} | {', '.join(f'`{reason}`' for reason in why)} |" for (old, new), why in CHANGES.items()
    ]
    return "\n".join(
        [
            "# The stages of a recovery",
            "",
            "Generated from `sidecar/machines/recovery/stages.py` by `make generate`. The rules behind the reasons",
            "stand at the head of `sidecar/machines/recovery/recovery.py`; how to write them in",
            "[Recover by itself](../howto/recovery.md).",
            "",
            *(f"* **{stage}**: {MEANING[stage]}" for stage in Stage),
            "",
            "```mermaid",
            mermaid(CHANGES, Stage.WELL),
            "```",
            "",
            "| from | to | reason |",
            "|---|---|---|",
            *reasons,
            "",
        ]
    )


def incident() -> str:
    """An incident's states, from the table that it runs on."""
    from sidecar.machines.diagram import mermaid
    from sidecar.machines.incidents.incident import CHANGES, MEANING, REASONS, Status

    return "\n".join(
        [
            "# The states of an incident",
            "",
            "Generated from `sidecar/machines/incidents/incident.py`, where the rules stand, by `make generate`.",
            "What opens one and how to speak to it: [Incidents](../howto/incidents.md).",
            "",
            *(f"* **{status}**: {MEANING[status]}" for status in Status),
            "",
            "```mermaid",
            mermaid(CHANGES, Status.DETECTED),
            "```",
            "",
            "| reason | what happened |",
            "|---|---|",
            *(f"| `{reason}` | {text} |" for reason, text in REASONS.items()),
            "",
        ]
    )


def table() -> dict[str, Callable[[], str]]:
    """Path from the repository's root -> what makes its text."""
    import dashboards
    import references

    from sidecar.config.generate import GENERATED

    made = {"docs/reference/cli.md": references.cli, "docs/reference/events.md": references.events}
    made["docs/reference/decisions.md"] = references.decisions
    made["docs/reference/modules.md"] = references.modules
    made |= {"docs/reference/metrics.md": metrics, "docs/reference/breaker.md": breaker}
    made["docs/reference/recovery.md"] = recovery
    made["docs/reference/incident.md"] = incident
    return {**GENERATED, **made, **dashboards.generated()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when a file is stale")
    check = parser.parse_args().check
    stale = 0
    for name, produce in table().items():
        path, fresh = ROOT / name, produce()
        if path.exists() and path.read_text(encoding="utf-8") == fresh:
            continue
        if check:
            stale += 1
            print(f"{name} is stale: run `make generate`", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fresh, encoding="utf-8")
            print(f"wrote {name}")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
