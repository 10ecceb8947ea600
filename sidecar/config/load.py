"""Read a configuration. The only module of this floor that touches files or the environment.

`load` and `parse` return a `Config` or raise `InvalidConfig` with every fault; `examine` returns all that `check` has
to say, notes included.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from sidecar.config.check import problems
from sidecar.config.decode import Decoder
from sidecar.config.document import Config
from sidecar.config.faults import Fault, InvalidConfig, Mark, Path, show_path
from sidecar.config.kinds import Section
from sidecar.config.nodes import compose
from sidecar.config.problem import Problem
from sidecar.config.shape import fields

MAX_FILE_BYTES = 1 << 20

Rules = Callable[[Any], Iterable[Problem]]
"""The rules between the fields of a decoded section."""

AlsoRules = Callable[[Config], Iterable[Problem]]


class Examination(NamedTuple):
    """What was found. `config` is None when there are faults; notes do not make a configuration unusable."""

    config: Config | None
    faults: list[Fault]
    notes: list[Fault]


def load(path: str, env: Mapping[str, str] | None = None) -> Config:
    """Read the file at `path`; `env` (the process's own when None) fills `${env:…}`."""
    examination = examine(read(path), path, os.environ if env is None else env)
    if examination.config is None:
        raise InvalidConfig(examination.faults)
    return examination.config


def parse(text: str | bytes, file: str = "<text>", env: Mapping[str, str] | None = None) -> Config:
    """Read a configuration from `text`, touching nothing else; without `env` no variable is set."""
    examination = examine(text, file, env)
    if examination.config is None:
        raise InvalidConfig(examination.faults)
    return examination.config


def read(file: str) -> bytes:
    """Return the bytes of `file`, at most one more than allowed; raise `InvalidConfig` when it cannot be read."""
    try:
        with open(file, "rb", opener=_open_at_once) as stream:
            os.set_blocking(stream.fileno(), True)
            return stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidConfig([Fault(file, Mark(), "", error.strerror or str(error))]) from None


def _open_at_once(file: str, flags: int) -> int:
    """A pipe that nobody writes to is empty; one that somebody has open (`-c <(…)`) is read to its end."""
    return os.open(file, flags | os.O_NONBLOCK)


def examine_file(path: str, env: Mapping[str, str] | None = None, also: AlsoRules | None = None) -> Examination:
    """Read the file at `path` and return all there is to say, with a note for every secret file that is not there.

    `also`: further rules, which may look into the files that the configuration names.
    """
    return _examine(read(path), path, os.environ if env is None else env, os.path.exists, also)


def examine(text: str | bytes, file: str = "<text>", env: Mapping[str, str] | None = None) -> Examination:
    """Decode and check `text`, finding every fault. Pure: asks nobody whether a named file exists."""
    return _examine(text, file, env or {}, lambda _: True)


def _examine(
    text: str | bytes,
    file: str,
    env: Mapping[str, str],
    exists: Callable[[str], bool],
    also: AlsoRules | None = None,
) -> Examination:
    def rules(config: Config) -> Iterator[Problem]:
        yield from problems(config)
        if also is not None:
            yield from also(config)
        yield from _missing_files(config, exists)

    config, faults, notes = examine_as(Config, rules, text, file, env)
    assert config is None or isinstance(config, Config)
    return Examination(config, faults, notes)


def examine_as(
    section: type[Section], rules: Rules, text: str | bytes, file: str, env: Mapping[str, str]
) -> tuple[Section | None, list[Fault], list[Fault]]:
    """Read a document that is one `section` under the rules between its fields; return it, its faults and notes.

    The section is None when there are faults.
    """
    try:
        data = text.encode() if isinstance(text, str) else text
        if len(data) > MAX_FILE_BYTES:
            return None, [Fault(file, Mark(), "", f"larger than {MAX_FILE_BYTES >> 20} MiB")], []
        written = data.decode("utf-8-sig")
    except UnicodeError as error:
        return None, [Fault(file, _place_of(error), "", "not UTF-8 text")], []
    root, faults = compose(written, file)
    if root is None:
        return None, faults or [Fault(file, Mark(), "", "the file is empty")], []
    decoder = Decoder(file, env)
    decoded = decoder.document(root, section)
    faults += decoder.faults
    notes: list[Fault] = []
    for problem in rules(decoded):
        if not any(_touch(problem.path, wrong) for wrong in decoder.wrong):
            place = _nearest(decoder.places, problem.path)
            found = Fault(file, place, show_path(problem.path), problem.message)
            (notes if problem.warning else faults).append(found)
    faults.sort(key=lambda fault: fault.mark)
    notes.sort(key=lambda note: note.mark)
    return None if faults else decoded, faults, notes


def _missing_files(section: Section, exists: Callable[[str], bool], path: Path = ()) -> Iterator[Problem]:
    for field in fields(type(section)):
        value, here = getattr(section, field.name), (*path, field.name)
        if field.name.endswith("_file") and value and not exists(value):
            yield Problem(here, f"{value} is not there yet", warning=True)
        for at, inner in [(here, value)] if isinstance(value, Section) else _items(value, here):
            yield from _missing_files(inner, exists, at)


def _items(value: object, path: Path) -> Iterator[tuple[Path, Section]]:
    if isinstance(value, tuple):
        yield from (((*path, i), item) for i, item in enumerate(value) if isinstance(item, Section))


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
