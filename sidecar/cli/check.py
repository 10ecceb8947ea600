"""`sidecar check`: every fault of a configuration, each as `file:line:col: path: message`.

It looks at the files that are named, too: a path below what is no directory is a fault. Notes (secret files that are
not there yet, what hardly is as meant) do not make it fail.
"""

import argparse
import json
import sys

from sidecar.cli import exits
from sidecar.cli.paint import paint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Check the configuration; 0 when it can be used, 78 when not."""
    from sidecar.config.effective import fingerprint
    from sidecar.config.faults import Fault, InvalidConfig
    from sidecar.config.load import Examination, examine_file
    from sidecar.runtime import tls

    try:
        found = examine_file(args.config, also=tls.problems)
    except InvalidConfig as error:  # the file cannot be read
        found = Examination(None, list(error.faults), [])
    if args.json:

        def plain(fault: Fault) -> dict[str, object]:
            return {
                "file": fault.file,
                "line": fault.mark.line,
                "column": fault.mark.column,
                "path": fault.path,
                "message": fault.message,
            }

        result = {
            "file": args.config,
            "ok": found.config is not None,
            "hash": fingerprint(found.config) if found.config else None,
            "faults": [plain(fault) for fault in found.faults],
            "notes": [plain(note) for note in found.notes],
        }
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        for fault in found.faults:
            print(paint(str(fault), "red"))
        for note in found.notes:
            print(paint(str(note._replace(message=f"note: {note.message}")), "yellow"))
        verdict = f"{args.config}: {_counted(len(found.faults), 'fault') if found.faults else 'ok'}"
        notes = f", {_counted(len(found.notes), 'note')}" if found.notes else ""
        print(verdict + notes, file=sys.stderr if found.faults else sys.stdout)
    return exits.OK if found.config else exits.CONFIG


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
