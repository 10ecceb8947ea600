"""Resolvers: where the endpoints of an upstream come from, one module per sort.

A source runs for as long as its upstream asks it, and reports every answer and every failure to look. An answer is
the whole of what is known, never a difference. A source decides nothing: what becomes of an answer, of one that is
missing, and of what it names is `machines/membership.py`'s and `control/discovery.py`'s business.
"""

from typing import Protocol

from sidecar.machines.membership import Answer


class Report(Protocol):
    """Whom a source tells."""

    async def found(self, answer: Answer) -> None:
        """The source was asked and says this."""

    def failed(self, reason: str) -> None:
        """The source could not be asked, or what it said is of no use; `reason` is one line for people."""


class Source(Protocol):
    """Finds the endpoints of one upstream."""

    kind: str
    """The key in `discovery`: dns, srv, file, registry or kubernetes."""
    target: str
    """What is looked up, for people."""

    async def run(self, report: Report) -> None:
        """Look until cancelled. A failure is reported and looked past; what is raised is a defect."""
