"""Reference pages from what is their truth: the parser, the enums, the modules' own words."""

import argparse
import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

SIDECAR = Path(__file__).resolve().parent.parent / "sidecar"


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
    lines += [f"| `{word}` | {about} |" for word, about in _documented(observer.Kind)]
    lines += [
        "",
        "What is only logged, with its level and fields. An exception adds `traceback`; what was held back by a limit,",
        "`held_back`; what a library says comes as `library_message`.",
        "",
        "| event | level | fields |",
        "|---|---|---|",
    ]
    said = _said(Path(observer.__file__).parents[1])
    lines += [
        f"| `{event}` | {', '.join(sorted(levels))} | {', '.join(sorted(fields)) or 'none'} |"
        for event, (levels, fields) in sorted(said.items())
    ]
    return "\n".join([*lines, ""])


def decisions() -> str:
    """Every word in `X-Sidecar-Decision`, on the metric and in the access log."""
    from sidecar.base import names

    lines = [
        "# Decisions",
        "",
        "Generated from `sidecar/base/names.py` by `make generate`. When the proxy made or altered an answer, one of these words says why:",
        "in the answer's field `X-Sidecar-Decision`, as the label `outcome` of `sidecar_requests_total`, and as `decision` in the",
        "access log. What to look at for each: [operations](../operations.md#what-a-caller-may-see).",
        "",
        "| decision | status | why |",
        "|---|---|---|",
    ]
    for word, about in _documented(names.Decision):
        status, _, why = about.partition(". ")
        lines.append(f"| `{word}` | {status} | {why} |")
    lines += ["", "Where none was made, `outcome` says:", "", "| outcome | means |", "|---|---|"]
    lines += [f"| `{word}` | {about} |" for word, about in _documented(names.Outcome)]
    return "\n".join([*lines, ""])


def _documented(enum: type) -> Iterator[tuple[str, str]]:
    """Each word of an enum and the docstring behind it."""
    tree = ast.parse(inspect.getsource(enum)).body[0]
    assert isinstance(tree, ast.ClassDef)
    for word, about in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(word, ast.Assign) and isinstance(word.value, ast.Constant):
            assert isinstance(about, ast.Expr), word.value.value
            assert isinstance(about.value, ast.Constant), word.value.value
            yield str(word.value.value), " ".join(str(about.value.value).split())


def _said(root: Path) -> dict[str, tuple[set[str], set[str]]]:
    """Every other event of the program's log: its levels and fields, as the calls write them."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for path in sorted(root.rglob("*.py")):
        if path.is_relative_to(root / "demo"):
            continue
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or not call.args:
                continue
            log, event = call.func.value, call.args[0]
            named = isinstance(log, ast.Name) and log.id == "_log"
            made = isinstance(log, ast.Call) and isinstance(log.func, ast.Name) and log.func.id == "Log"
            if (named or made) and isinstance(event, ast.Constant) and isinstance(event.value, str):
                levels, fields = found.setdefault(event.value, (set(), set()))
                levels.add(call.func.attr.replace("exception", "error"))
                fields |= {
                    one.arg for one in call.keywords if one.arg and one.arg not in {"every", "about", "error", "extra"}
                }
    return found


def modules() -> str:
    """Every module with the first sentence of its theory, by directory."""
    lines = [
        "# Modules",
        "",
        "Generated from the first paragraph of each module by `make generate`: which room a behaviour lives in. How the floors",
        "lie above each other: [Architecture](../architecture.md).",
    ]
    for directory in (SIDECAR, *sorted(one for one in SIDECAR.rglob("*") if one.is_dir())):
        found = [(path.name, _theory(path)) for path in sorted(directory.glob("*.py"))]
        told = [(name, theory) for name, theory in found if theory]
        if not told:
            continue
        lines += ["", f"## {directory.relative_to(SIDECAR.parent)}", ""]
        own = [theory for name, theory in told if name == "__init__.py"]
        rest = [f"* `{name}`: {theory}" for name, theory in told if name != "__init__.py"]
        lines += [*own, *([""] if own and rest else []), *rest]
    return "\n".join([*lines, ""])


def _theory(path: Path) -> str:
    """The first paragraph of its docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())
