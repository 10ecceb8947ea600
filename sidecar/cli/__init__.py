"""The command line. Every verb lives in a module of its own and is imported only when it is called.

Nothing heavy is imported here: `sidecar VERB --help` costs an interpreter and argparse.
"""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import sidecar
from sidecar.base.errors import ConfigError
from sidecar.cli import exits
from sidecar.cli.verbs import VERBS

DEFAULT_CONFIG = "/etc/sidecar/sidecar.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that `argv` (the process's own arguments when None) calls for; return the exit code."""
    _open_standard_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(_verb_of(arguments))
    if not arguments:
        parser.print_help(sys.stderr)
        return exits.USAGE
    args, surplus = parser.parse_known_args(arguments)
    if surplus:
        file = next((f"; name the file with -c {word}" for word in surplus if word.endswith((".yaml", ".yml"))), "")
        args.parser.error(f"unrecognized: {' '.join(surplus)}{file}")
    args.config_given = args.config is not None
    args.config = args.config or os.environ.get("SIDECAR_CONFIG") or DEFAULT_CONFIG
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return exits.CONFIG
    except BrokenPipeError:  # the reader had enough; what is still buffered has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    return code


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The parser of one verb, with all its arguments."""
    (choices,) = (one.choices for one in _parser(verb)._actions if isinstance(one, argparse._SubParsersAction))
    parser: argparse.ArgumentParser = choices[verb]
    return parser


def _open_standard_streams() -> None:
    """Those that the caller closed lead nowhere: else the next file or socket got their numbers, and our output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115


def _verb_of(arguments: Sequence[str]) -> str:
    """The first word that is neither an option nor the file of -c."""
    pairs = zip(("", *arguments), arguments, strict=False)
    return next((word for last, word in pairs if word[:1] != "-" and last not in ("-c", "--config")), "")


def _parser(wanted: str) -> argparse.ArgumentParser:
    """Build the parser; only the wanted verb's module is imported for its arguments."""
    parser = argparse.ArgumentParser(
        prog="sidecar",
        description="A service-mesh sidecar: a strict reverse proxy next to your service.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sidecar {sidecar.__version__}")
    _add_config(parser, None)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        subparser = verbs.add_parser(verb.name, help=verb.help, description=_sentence(verb.help), allow_abbrev=False)
        if verb.name == wanted:
            subparser.set_defaults(verb=verb.name, parser=subparser)
            _add_config(subparser, argparse.SUPPRESS)  # not given here: what stands before the verb counts
            module = import_module(verb.module)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    names = [verb.name for verb in VERBS]
    if wanted and wanted not in names:
        close = difflib.get_close_matches(wanted, names, n=1)
        parser.error(f"there is no verb {wanted!r}" + (f"; did you mean {close[0]}?" if close else "; see --help"))
    return parser


def _add_config(parser: argparse.ArgumentParser, default: str | None) -> None:
    text = f"the configuration (default: $SIDECAR_CONFIG, else {DEFAULT_CONFIG})"
    parser.add_argument("-c", "--config", metavar="FILE", default=default, help=text)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
