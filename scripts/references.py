"""The reference pages of the command line and of the log's events, from the parser and the enum that are their truth."""

import argparse
import ast
import inspect
from collections.abc import Iterator


def cli() -> str:
    """Every verb with its arguments, as the parser knows them."""
    from sidecar.cli import parser_of
    from sidecar.cli.verbs import VERBS

    lines = [
        "# Commands",
        "",
        "Generated from the command line's own parser by `make generate`. Every verb takes `-c FILE` (else `$SIDECAR_CONFIG`, else",
        "/etc/sidecar/sidecar.yaml) and `--help`. Exit codes: [operations](../operations.md).",
        "",
    ]
    for verb in VERBS:
        lines += _verb(f"sidecar {verb.name}", verb.help, parser_of(verb.name), 2)
    return "\n".join(lines)


def _verb(name: str, help_text: str, parser: argparse.ArgumentParser, depth: int) -> Iterator[str]:
    yield from (f"{'#' * depth} {name}", "", help_text[:1].upper() + help_text[1:] + ".", "")
    below: list[tuple[str, str, argparse.ArgumentParser]] = []
    listed = False
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            below += [(word, helps.get(word, ""), one) for word, one in action.choices.items()]
        elif not isinstance(action, argparse._HelpAction) and action.dest != "config":
            listed = True
            yield f"* `{_spelled(action)}`: {action.help or action.dest}"
    if listed:
        yield ""
    for word, text, one in below:
        yield from _verb(f"{name} {word}", text or word, one, depth + 1)


def _spelled(action: argparse.Action) -> str:
    value = action.metavar or (
        "|".join(map(str, action.choices)) if action.choices else action.dest.upper().replace("_", "-")
    )
    if not action.option_strings:
        return f"[{value} …]" if action.nargs == "*" else f"[{value}]" if action.nargs == "?" else str(value)
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {value}")


def events() -> str:
    """Every happening that the log tells under a stable name."""
    from sidecar.runtime import observer

    lines = [
        "# Events",
        "",
        "Generated from `sidecar/runtime/observer.py` by `make generate`. What happens is told once: as a line of the log whose `event`",
        "is the word here, and to whoever listens in the program. Where a kind has a `reason` or a `detail`, each of its lines has it. The names are stable.",
        "",
        "| event | its subject; its fields |",
        "|---|---|",
    ]
    tree = ast.parse(inspect.getsource(observer.Kind)).body[0]
    assert isinstance(tree, ast.ClassDef)
    for word, about in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(word, ast.Assign) and isinstance(word.value, ast.Constant):
            assert isinstance(about, ast.Expr), word.value.value
            assert isinstance(about.value, ast.Constant), word.value.value
            lines.append(f"| `{word.value.value}` | {' '.join(str(about.value.value).split())} |")
    return "\n".join([*lines, ""])
