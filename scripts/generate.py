"""Writes the files that are generated from the code; with --check, only says which of them are stale.

One table: a path and what its content is made from. `make generate` writes, `make check` compares.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

GENERATED: dict[str, Callable[[], str]] = {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when a file is stale")
    check = parser.parse_args().check
    stale = 0
    for name, produce in GENERATED.items():
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
