"""Read a configuration. The only module of this floor that touches files or the environment.

`load` and `parse` return a `Config` or raise `InvalidConfig` with every fault; `examine` returns all that `check` has
to say, notes included.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from sidecar.config.check import problems
from sidecar.config.decode import Decoder
from sidecar.config.document import Config
from sidecar.config.faults import Fault, InvalidConfig, Mark, Path, show_path
from sidecar.config.nodes import compose

MAX_FILE_BYTES = 1 << 20


class Examination(NamedTuple):
    """What was found. `config` is None when there are faults."""

    config: Config | None
    faults: list[Fault]
    places: dict[Path, Mark]


def load(path: str, env: Mapping[str, str] | None = None) -> Config:
    """Read the file at `path`; `env` (the process's own when None) fills `${env:…}`."""
    file = str(path)
    examination = examine(read(file), file, os.environ if env is None else env)
    if examination.config is None:
        raise InvalidConfig(examination.faults)
    return examination.config


def parse(text: str | bytes, file: str = "<text>", env: Mapping[str, str] | None = None) -> Config:
    """Read a configuration from `text`, touching nothing else; without `env` no variable is set."""
    examination = examine(text, file, env or {})
    if examination.config is None:
        raise InvalidConfig(examination.faults)
    return examination.config


def read(file: str) -> bytes:
    """Return the bytes of `file`, at most one more than allowed; raise `InvalidConfig` when it cannot be read."""
    try:
        with open(file, "rb") as stream:
            return stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidConfig([Fault(file, Mark(), "", error.strerror or str(error))]) from None


def examine(text: str | bytes, file: str, env: Mapping[str, str]) -> Examination:
    """Decode and check `text`, finding every fault. Pure."""
    try:
        data = text.encode() if isinstance(text, str) else text
        if len(data) > MAX_FILE_BYTES:
            return Examination(None, [Fault(file, Mark(), "", f"larger than {MAX_FILE_BYTES >> 20} MiB")], {})
        written = data.decode("utf-8-sig")
    except UnicodeError as error:
        return Examination(None, [Fault(file, _place_of(error), "", "not UTF-8 text")], {})
    root, faults = compose(written, file)
    if root is None:
        return Examination(None, faults or [Fault(file, Mark(), "", "the file is empty")], {})
    decoder = Decoder(file, env)
    config = decoder.config(root)
    faults += decoder.faults
    for problem in problems(config):
        if not any(_touch(problem.path, wrong) for wrong in decoder.wrong):
            faults.append(Fault(file, _nearest(decoder.places, problem.path), show_path(problem.path), problem.message))
    faults.sort(key=lambda fault: fault.mark)
    return Examination(None if faults else config, faults, decoder.places)


def _touch(path: Path, wrong: Path) -> bool:
    """Whether one of the two lies within the other: then the rule may have judged a stand-in value."""
    shared = min(len(path), len(wrong))
    return path[:shared] == wrong[:shared]


def _nearest(places: Mapping[Path, Mark], path: Path) -> Mark:
    while path not in places:
        path = path[:-1]
    return places[path]


def _place_of(error: UnicodeError) -> Mark:
    if not isinstance(error, UnicodeDecodeError):
        return Mark()
    before = error.object[: error.start]
    return Mark(before.count(b"\n") + 1, len(before) - before.rfind(b"\n"))
