"""The rules between fields. Pure: takes a decoded `Config`, yields every rule that it breaks.

The rules stand in files by what they are about: `rules_addresses` (who listens where, what would call itself),
`rules_traffic` (listeners, routes, upstreams), `rules_tls`, `rules_recovery`, and `rules_upkeep` (what is left
beside the traffic).

A `Problem` is a fault unless it is a warning: what works as written, but hardly as meant.
"""

from collections.abc import Iterator

from sidecar.config import rules_addresses, rules_recovery, rules_tls, rules_traffic, rules_upkeep
from sidecar.config.document import Config
from sidecar.config.problem import Problem


def problems(config: Config) -> Iterator[Problem]:
    """Yield every broken rule of `config`."""
    yield from rules_addresses.problems(config)
    yield from rules_traffic.problems(config)
    yield from rules_tls.problems(config)
    yield from rules_upkeep.problems(config)
    yield from rules_recovery.problems(config)
