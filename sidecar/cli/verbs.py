"""The table of verbs: what `sidecar --help` lists, and the module that is imported when one is called.

A module has `add_arguments(parser)` and `run(args) -> exit code`, and imports at its top only what `--help` needs.
`args.config` is the configuration's path (`-c`, $SIDECAR_CONFIG or the default place), `args.config_given` whether
somebody said so, `args.verb` the verb. A module that serves several verbs finds its verb in
`parser.get_default("verb")`.
"""

from typing import NamedTuple


class Verb(NamedTuple):
    """One verb: its name, one line of help, the module that does it."""

    name: str
    help: str
    module: str


VERBS = (
    Verb("run", "run the proxy", "sidecar.cli.run"),
    Verb("check", "validate a configuration: every fault with its place", "sidecar.cli.check"),
    Verb("schema", "print the configuration's JSON Schema", "sidecar.cli.schema"),
    Verb("explain", "explain a configuration key: meaning, unit, default, source", "sidecar.cli.explain"),
    Verb("print-defaults", "print the effective configuration, defaults included", "sidecar.cli.print_defaults"),
    Verb("diff", "compare two configurations: what is live, what needs a restart", "sidecar.cli.diff"),
    Verb("status", "show what the running proxy does", "sidecar.cli.control"),
    Verb("drain", "make the running proxy unready and let connections end", "sidecar.cli.control"),
    Verb("reload", "make the running proxy read its configuration again", "sidecar.cli.control"),
    Verb(
        "upgrade", "let a new process take over from the running one, without losing a request", "sidecar.cli.control"
    ),
    Verb("breaker", "look at breakers, open or close them by hand", "sidecar.cli.breaker"),
    Verb("recover", "look at recovery, pause it, run a rule by hand", "sidecar.cli.recover"),
    Verb("incidents", "look at incidents, acknowledge, resolve, export a post-mortem", "sidecar.cli.incidents"),
    Verb("simulate", "replay a scenario or an access log on a virtual clock", "sidecar.cli.simulate"),
    Verb("agent", "run the backup agent: it keeps the RPO and proves it", "sidecar.cli.agent"),
    Verb("backup", "make backups, look at them, verify them", "sidecar.cli.backup"),
    Verb("snapshot", "make a backup that stays, hold one, let it go", "sidecar.cli.snapshot"),
    Verb("catalog", "rebuild what this machine knows of the backups", "sidecar.cli.backup"),
    Verb("restore", "bring a backup back: first a plan, then its steps", "sidecar.cli.restore"),
    Verb("drill", "prove by restoring that the backups work, and how long it takes", "sidecar.cli.drill"),
    Verb("stop", "stop the running proxy; what runs may finish", "sidecar.cli.control"),
)
