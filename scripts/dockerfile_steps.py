"""Runs the Dockerfile's own instructions without a container, then starts what they installed.

The build stage's COPY and RUN are carried out as they stand, with the image's paths moved under a temporary
directory. Then `sidecar --version` runs from there as the image's user, who may write nothing. Catches a file that
was not copied, a lock that does not resolve, a package that needs a compiler, an import that writes to disk. It does
not know whether the base image has what it should.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOVED = re.compile(r"(?<![\w./])/(?=(?:opt|src|wheels|rootfs)\b)")
"""The directories that the build stage makes; everything else (/usr, /bin) is the machine's own."""


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Keyword and argument of each instruction, continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        keyword, _, argument = line.partition(" ")
        yield keyword.upper(), argument.strip()


def build(prefix: Path, steps: list[tuple[str, str]]) -> None:
    """Carries out the first stage under `prefix`."""
    work = prefix
    environment = dict(os.environ)
    if Path("/usr/bin/python3").exists():  # one that every user may run, as in the image
        environment["PATH"] = "/usr/bin:" + environment["PATH"]
    for keyword, argument in steps:
        print(f"{keyword} {argument}", flush=True)
        if keyword == "ENV":
            environment |= dict(item.split("=", 1) for item in shlex.split(argument))
        elif keyword == "WORKDIR":
            work = prefix / argument.lstrip("/")
            work.mkdir(parents=True)
        elif keyword == "COPY":
            *sources, target = shlex.split(argument)
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, work / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / source, work / target)
        elif keyword == "RUN":
            command = MOVED.sub(f"{prefix}/", argument)
            subprocess.run(["/bin/sh", "-eu", "-c", command], cwd=work, env=environment, check=True)
        elif keyword not in {"FROM", "SHELL"}:
            raise SystemExit(f"the build stage uses {keyword}, which this script does not know")


def start(prefix: Path, steps: list[tuple[str, str]]) -> str:
    """What `sidecar --version` prints when the image's user runs it where nothing can be written."""
    final = dict(steps)
    uid, _, gid = final["USER"].partition(":")
    (entrypoint,) = json.loads(final["ENTRYPOINT"])
    as_user = ["setpriv", "--reuid", uid, "--regid", gid, "--clear-groups"] if os.geteuid() == 0 else []
    subprocess.run(["chmod", "-R", "a-w", prefix], check=True)
    command = [*as_user, prefix / "opt/sidecar/bin" / entrypoint, "--version"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=prefix, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"--version ended with {done.returncode}:\n{done.stderr}")
    return done.stdout.strip()


def main() -> int:
    steps = list(instructions((ROOT / "Dockerfile").read_text(encoding="utf-8")))
    stages = [index for index, (keyword, _) in enumerate(steps) if keyword == "FROM"]
    prefix = Path(tempfile.mkdtemp(prefix="sidecar-image-"))
    prefix.chmod(0o755)
    try:
        build(prefix, steps[: stages[1]])
        print(f"as the image's user, read-only: {start(prefix, steps[stages[1] :])}")
    finally:
        subprocess.run(["chmod", "-R", "u+w", prefix], check=False)
        shutil.rmtree(prefix)
    return 0


if __name__ == "__main__":
    sys.exit(main())
