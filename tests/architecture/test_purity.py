"""What imports alone cannot show: no clock is read, no file opened, no dice thrown inside a decision."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "sidecar"
MACHINES = sorted((PACKAGE / "machines").rglob("*.py"))
EVERY = sorted(PACKAGE.rglob("*.py"))

DEEDS = {"open", "print", "input", "exec", "eval", "__import__"}
NOW = {"now", "utcnow", "today"}  # of datetime and date
DICE = {"random", "randint", "randrange", "choice", "choices", "shuffle", "uniform", "gauss", "sample", "seed"}
"""Of the module: a generator that was passed in may be asked, the global one may not."""


def impurities(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield f"{node.lineno}: {type(node).__name__}"
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id=name) if name in DEEDS:
                yield f"{node.lineno}: {name}()"
            case ast.Attribute(value=ast.Name(id="datetime" | "date"), attr=name) if name in NOW:
                yield f"{node.lineno}: {name}() reads the clock"
            case ast.Attribute(value=ast.Name(id="random"), attr=name) if name in DICE:
                yield f"{node.lineno}: random.{name}() is global chance"


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_machine_decides_and_does_nothing(path: Path):
    assert list(impurities(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "open('x')",
        "datetime.now(UTC)",
        "random.choice([1])",
        "async def f(): ...",
        "print(1)",
    ],
)
def test_the_check_sees_an_impurity(source: str):
    assert list(impurities(source))


@pytest.mark.parametrize("path", EVERY, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_file_opens_with_its_theory(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "a module opens with a docstring"


def test_no_file_has_a_name_that_says_nothing():
    nothing = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    assert [path for path in EVERY if path.stem in nothing or path.parent.name in nothing] == []
