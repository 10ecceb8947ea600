"""The post-mortem's skeleton: what is known is filled in, what others said stays text."""

from sidecar.cli.post_mortem import data, markdown

FOUND = {
    "id": "20261125-031502-9f3a", "service": "shop", "instance": "shop-1", "failure": "upstream_failing",
    "subject": "app", "title": "The breaker of app is open: <b>*5* in a row", "severity": "critical",
    "status": "resolved", "open": False,
    "started": "2026-11-25T03:15:00.000+00:00", "detected": "2026-11-25T03:15:02.500+00:00",
    "acknowledged": "2026-11-25T03:20:00.000+00:00", "notified": "2026-11-25T03:15:03.000+00:00",
    "mitigated": "2026-11-25T04:20:00.000+00:00", "resolved": "2026-11-25T04:20:15.000+00:00", "closed": None,
    "acknowledged_by": "alice", "resolved_by": "", "relapses": 2, "reopened": 0, "down_seconds": 3900.0,
    "impact": {"requests": 5000.0, "failed_requests": 1234.0}, "holds": [],
    "timeline": [
        {"at": "2026-11-25T03:15:02.500+00:00", "kind": "breaker_changed", "subject": "app", "level": "warning",
         "text": "closed → open\n| <script>"},
        {"at": "2026-11-25T03:16:00.000+00:00", "kind": "recovery_started", "subject": "fix", "level": "info",
         "text": "1"},
        {"at": "2026-11-25T03:20:00.000+00:00", "kind": "incident_acknowledged", "subject": "app", "level": "info",
         "text": "acknowledged by alice"},
    ],
}  # fmt: skip


def test_durations_impact_and_what_was_tried_are_filled_in() -> None:
    text = markdown(FOUND)
    assert "| Resolved by | itself |" in text
    assert "* to detect: 2.5 s" in text and "* to acknowledge: 4 min 58 s" in text and "* to resolve: 1 h 5 min" in text
    assert "* failed requests: 1,234" in text
    tried = text.partition("## What was tried")[2].partition("## Timeline")[0]
    assert "recovery started" in tried and "acknowledged by alice" in tried and "breaker" not in tried
    found = data(FOUND)
    assert found["seconds"]["to_notify"] == 0.5 and len(found["tried"]) == 1 and len(found["said_and_changed"]) == 1


def test_what_others_said_is_neither_markdown_nor_html() -> None:
    text = markdown(FOUND)
    assert "# Post-mortem: The breaker of app is open: \\<b\\>\\*5\\* in a row" in text
    assert "\n| <script>" not in text and "\\| \\<script\\>" in text


def test_what_is_not_over_has_no_end() -> None:
    text = markdown({**FOUND, "resolved": None, "mitigated": None, "acknowledged": None, "acknowledged_by": ""})
    assert "* to resolve: never" in text and "| Acknowledged by | nobody |" in text
