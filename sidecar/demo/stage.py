"""The stage: which processes there are, on which ports, and the proxy's configuration.

Two shops share one database and stand behind the proxy. The shops cannot do without the warehouse, so it is a
dependency whose health the proxy watches; and it is the proxy's own child, which a rule starts anew when it hangs.
"""

import secrets
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from sidecar.demo.child import Child

CONFIG = """\
# Written by the demo at each start. Every key: `sidecar explain KEY`.
version: 1
service: {{name: orders, instance: demo}}
admin: {{bind: "127.0.0.1:{admin_port}", socket: "{state}/admin.sock"}}
access_log: {{path: "{state}/access.log"}}
shutdown: {{drain_timeout: 3s}}

listeners:
  - name: inbound
    bind: 127.0.0.1:{port}
    routes:
      - name: orders
        match: {{path_prefix: /orders}}
        upstream: shops
        timeout: 2s
        retry: {{attempts: 2}}
        fallback:
          - cache: {{max_age: 5m}}       # who only looks gets the last good answer, marked as such
          - respond:                   # who orders is told so
              status: 503
              headers: {{content-type: application/json, retry-after: "5"}}
              body: '{{"error": "the shops are closed for a moment, please try again"}}'
      - {{name: health, match: {{path: /healthz}}, upstream: shops, timeout: 2s}}
      - {{name: stock, match: {{path_prefix: /stock}}, upstream: warehouse, timeout: 2s}}

# Where a figure is not the default, it is shorter: nobody watches a demo for a minute.
upstreams:
  - name: shops
    endpoints: [{{address: "127.0.0.1:{shop_ports[0]}"}}, {{address: "127.0.0.1:{shop_ports[1]}"}}]
    breaker: {{open_for: 4s}}                              # 60s
    outlier: {{interval: 1s, base_ejection: 2s}}           # 10s, 30s
    health_check: {{http: {{path: /healthz}}, interval: 1s, timeout: 1s, unhealthy_after: 2}}   # 30s, 10s, 3
  - name: warehouse
    endpoints: [{{address: "127.0.0.1:{warehouse_port}"}}]
    health_check: {{http: {{path: /healthz}}, interval: 1s, timeout: 1s, unhealthy_after: 5}}   # it has to start

recovery:
  - name: restart-warehouse
    when: {{upstream: warehouse, unhealthy_for: 1s}}       # 5s
    do: {{restart: process}}                               # of `sidecar run -c FILE -- COMMAND`
    budget: {{runs: 20, per: 10m}}                         # 2 in 10m

dependencies:
  - name: warehouse
    check: {{http: {{url: "http://127.0.0.1:{warehouse_port}/healthz"}}}}
    interval: 1s                                         # 60s
    timeout: 1s                                          # 10s
    unhealthy_after: 5                                   # 3

incidents: {{store: "{state}/incidents.db", resolve_after: 5s}}   # 15s

backup:                                                  # kept by the agent, a process of its own
  rpo: 3m                                                # 15m; so there is a backup every minute
  state_dir: "{state}/agent"
  admin: {{bind: "127.0.0.1:{agent_port}", socket: "{state}/agent.sock"}}
  repository: {{url: "{state}/backups", engine: sealed, password_file: "{state}/backup-key"}}
  sources:
    - {{name: orders, sqlite: {{path: "{state}/orders.db"}}}}
    - {{name: config, files: {{paths: ["{state}/sidecar.yaml"]}}}}
  drill:                                                 # a restore into an empty place, to know that it works
    every: 1m                                            # 24h
    checks: [{{source: orders, sql: "SELECT count(*) >= 0 FROM orders"}}]
  retention: {{keep_within: 1h, daily: 1, weekly: 0, monthly: 0}}
"""

GREETING = """\

  Status page     http://127.0.0.1:{admin_port}/   open it beside this
  The proxy       http://127.0.0.1:{port}/orders
  Metrics         http://127.0.0.1:{admin_port}/metrics   of the agent: http://127.0.0.1:{agent_port}/metrics
  Shops           127.0.0.1:{shop_ports[0]} and :{shop_ports[1]}, orders in {here}/orders.db
  Warehouse       127.0.0.1:{warehouse_port}
  Configuration   {here}/sidecar.yaml   logs: {here}/*.log
  By hand         {program} breaker open shops --for 10s -c {here}/sidecar.yaml
                  {program} incidents list -c {here}/sidecar.yaml
                  {program} restore plan --target {here}/restored -c {here}/sidecar.yaml

  In the first minute: a backup and a drill; one shop dies and no customer
  notices; both die: the breaker opens, customers get fallbacks, the breaker
  closes; the warehouse hangs and is restarted. Then on and on.
  Ctrl-C ends everything.
"""


@dataclass(frozen=True)
class Places:
    """Where everything is; ports are those of 127.0.0.1."""

    state: Path
    port: int
    admin_port: int
    shop_ports: tuple[int, int]
    warehouse_port: int
    agent_port: int

    @property
    def admin(self) -> str:
        """The admin interface's URL, without a path."""
        return f"http://127.0.0.1:{self.admin_port}"

    def told(self, text: str) -> str:
        """CONFIG or GREETING with these places."""
        program = Path(sys.executable).with_name("sidecar")
        return text.format(**vars(self), here=_from_here(self.state), program=_from_here(program))


@dataclass(frozen=True)
class Cast:
    """The processes, not started yet."""

    proxy: Child
    """With the warehouse as its child."""
    agent: Child
    shops: tuple[Child, Child]


def choose(state: Path, port: int, admin_port: int) -> Places:
    """The given ports for the proxy, free ones for the services."""
    first, second, third, fourth = any_free_ports(4)
    return Places(state, port, admin_port, (first, second), third, fourth)


def cast(places: Places) -> Cast:
    """Writes the proxy's configuration; logs and incidents of the demo before are gone, its orders and backups stay."""
    state = places.state
    for old in (*state.glob("*.log"), *state.glob("incidents.db*")):
        old.unlink()
    config = state / "sidecar.yaml"
    config.write_text(places.told(CONFIG), encoding="utf-8")
    key = state / "backup-key"
    if not key.exists():  # the backups of the demo before are still its own
        key.write_text(secrets.token_urlsafe(32) + "\n", encoding="ascii")
        key.chmod(0o600)
    python = [sys.executable, "-m"]

    def service(port: int, database: str) -> list[str]:
        return [*python, "sidecar.demo.service", "--port", str(port), "--database", str(state / database)]

    first, second = places.shop_ports
    run = [
        *python,
        "sidecar",
        "run",
        "-c",
        str(config),
        "--",
        *service(places.warehouse_port, "warehouse.db"),
        "--quiet",
    ]
    return Cast(
        proxy=Child("the proxy", run, state / "sidecar.log"),
        agent=Child("the agent", [*python, "sidecar", "agent", "run", "-c", str(config)], state / "agent.log"),
        shops=(
            Child("shop-1", service(first, "orders.db"), state / "shop-1.log"),
            Child("shop-2", service(second, "orders.db"), state / "shop-2.log"),
        ),
    )


def _from_here(path: Path) -> Path:
    """The path as somebody in this directory would write it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def port_is_free(port: int) -> bool:
    """Whether a listener could have it now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def any_free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
