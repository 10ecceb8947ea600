"""Runs the Dockerfile's own instructions without a container, then starts what they installed.

The build stage's COPY and RUN are carried out as they stand, with the image's paths moved under a temporary
directory. Then the proxy runs from there as the image's user, who may write nothing but its socket, answers
`sidecar status`, and ends at SIGTERM. Catches a file that was not copied, a lock that does not
resolve, a package that needs a compiler, an import that writes to disk. It does not know whether the base image has
what it should.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
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


CONFIG = """\
version: 1
admin: {{bind: "127.0.0.1:0", socket: {run}/admin.sock}}
listeners: [{{name: inbound, bind: "127.0.0.1:0", routes: [{{name: all, upstream: app}}]}}]
upstreams: [{{name: app, endpoints: [{{address: "127.0.0.1:9"}}]}}]
"""
VERBS = (["check"], ["breaker", "open", "app", "--for", "1s"], ["reload"], ["drain"])
"""What a person does next in the container."""


def start(prefix: Path, steps: list[tuple[str, str]]) -> str:
    """Runs the proxy as the image's user where only its socket's directory can be written; what `status` says of it."""
    final = dict(steps)
    uid, _, gid = final["USER"].partition(":")
    (entrypoint,) = json.loads(final["ENTRYPOINT"])
    as_user = ["setpriv", "--reuid", uid, "--regid", gid, "--clear-groups"] if os.geteuid() == 0 else []
    program = [*as_user, str(prefix / "opt/sidecar/bin" / entrypoint)]
    run = prefix / "rootfs/run/sidecar"
    config = prefix / "rootfs/etc/sidecar/sidecar.yaml"
    config.write_text(CONFIG.format(run=run), encoding="utf-8")
    subprocess.run(["chmod", "-R", "a-w", prefix], check=True)
    if as_user:
        os.chown(run, int(uid), int(gid))
    run.chmod(0o700)

    environment = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "SIDECAR_CONFIG": str(config)}
    settings = {"cwd": prefix, "env": environment, "text": True}
    proxy = subprocess.Popen([*program, *json.loads(final["CMD"])], stderr=subprocess.PIPE, **settings)
    try:
        for _ in range(50):
            status = subprocess.run([*program, "status"], capture_output=True, check=False, **settings)
            if status.returncode == 0 or proxy.poll() is not None:
                break
            time.sleep(0.1)
        asked = [status]
        asked += [subprocess.run([*program, *verb], capture_output=True, check=False, **settings) for verb in VERBS]
        proxy.terminate()
        _, log = proxy.communicate(timeout=10)
    finally:
        proxy.kill()
    failed = [f"{' '.join(one.args)} ended with {one.returncode}: {one.stderr}" for one in asked if one.returncode]
    if failed or proxy.returncode:
        raise SystemExit("\n".join([*failed, f"the proxy ended with {proxy.returncode}:", log]))
    return status.stdout.strip()


def main() -> int:
    steps = list(instructions((ROOT / "Dockerfile").read_text(encoding="utf-8")))
    stages = [index for index, (keyword, _) in enumerate(steps) if keyword == "FROM"]
    prefix = Path(tempfile.mkdtemp(prefix="sidecar-image-"))
    prefix.chmod(0o755)
    try:
        build(prefix, steps[: stages[1]])
        print("as the image's user, read-only:\n" + start(prefix, steps[stages[1] :]))
    finally:
        subprocess.run(["chmod", "-R", "u+w", prefix], check=False)
        shutil.rmtree(prefix)
    return 0


if __name__ == "__main__":
    sys.exit(main())
