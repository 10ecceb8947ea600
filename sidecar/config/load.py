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
from sidecar.config.kinds import Kind, Section
from sidecar.config.nodes import compose
from sidecar.config.problem import Problem
from sidecar.config.shape import Field, ListOf, fields

MAX_FILE_BYTES = 1 << 20

Rules = Callable[[Any], Iterable[Problem]]
"""The rules between the fields of a decoded section."""

AlsoRules = Callable[[Config], Iterable[Problem]]


_DIRECTORIES = {"url", "state_dir", "scratch"}
"""Keys of paths that are directories themselves."""
_ELSEWHERE = {"exists"}
"""Keys of paths that are not looked for on this machine."""


class _Disk(NamedTuple):
    """What is asked about the files that a configuration names."""

    exists: Callable[[str], bool]
    obstacle: Callable[[str], str]
    """What is in the way of a path: above it, there, and no directory. Empty: nothing."""


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


def read(file: str, absent: str = ": name another with -c FILE or in SIDECAR_CONFIG") -> bytes:
    """Return the bytes of `file`, at most one more than allowed; raise `InvalidConfig` when it cannot be read.

    `absent`: what to do when it is not there.
    """
    try:
        with open(file, "rb", opener=_open_at_once) as stream:
            os.set_blocking(stream.fileno(), True)
            return stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidConfig([Fault(file, Mark(), "", _unreadable(error, absent))]) from None


def _unreadable(error: OSError, absent: str) -> str:
    """Why it cannot be read, and what to do."""
    if isinstance(error, FileNotFoundError):
        return f"there is no such file{absent}"
    if isinstance(error, PermissionError):
        return f"user {os.geteuid()} may not read it: change the file's rights, or run this as another user"
    return error.strerror or str(error)


def _open_at_once(file: str, flags: int) -> int:
    """A pipe that nobody writes to is empty; one that somebody has open (`-c <(…)`) is read to its end."""
    return os.open(file, flags | os.O_NONBLOCK)


def examine_file(path: str, env: Mapping[str, str] | None = None, also: AlsoRules | None = None) -> Examination:
    """Read the file at `path` and return all there is to say, with a note for every secret file that is not there, and
    a fault for every path that cannot be.

    `also`: further rules, which may look into the files that the configuration names.
    """
    disk = _Disk(os.path.exists, _obstacle)
    return _examine(read(path), path, os.environ if env is None else env, disk, also)


def examine(text: str | bytes, file: str = "<text>", env: Mapping[str, str] | None = None) -> Examination:
    """Decode and check `text`, finding every fault. Pure: asks nobody whether a named file exists."""
    return _examine(text, file, env or {}, _Disk(lambda _: True, lambda _: ""))


def _examine(
    text: str | bytes,
    file: str,
    env: Mapping[str, str],
    disk: _Disk,
    also: AlsoRules | None = None,
) -> Examination:
    def rules(config: Config) -> Iterator[Problem]:
        yield from problems(config)
        if also is not None:
            yield from also(config)
        yield from _named_files(config, disk)

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
        return None, faults or [Fault(file, Mark(), "", "the file is empty; it begins with version: 1")], []
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


def _named_files(section: Section, disk: _Disk, path: Path = ()) -> Iterator[Problem]:
    for field in fields(type(section)):
        value, here = getattr(section, field.name), (*path, field.name)
        for at, name in _paths(field, value, here):
            obstacle = disk.obstacle(f"{name}/." if field.name in _DIRECTORIES else name)
            if obstacle:
                yield Problem(at, f"{obstacle} is no directory" + ("" if obstacle == name else f": {name} cannot be"))
            elif field.name.endswith("_file") and not disk.exists(name):
                yield Problem(at, f"{name} is not there yet", warning=True)
        for at, inner in [(here, value)] if isinstance(value, Section) else _items(value, here):
            yield from _named_files(inner, disk, at)


def _paths(field: Field, value: Any, here: Path) -> Iterator[tuple[Path, str]]:
    """The paths on this machine that a key names, and where they stand; a Unix socket's among them."""
    many = isinstance(field.shape, ListOf)
    kind = field.shape.item if isinstance(field.shape, ListOf) else field.shape
    if not isinstance(kind, Kind) or kind.word not in {"path", "output", "address", "repository"}:
        return
    if field.name in _ELSEWHERE or not value:
        return
    for i, text in enumerate(value if many else (value,)):
        name = text.removeprefix("unix:")
        if name.startswith("/"):
            yield ((*here, i) if many else here), name


def _obstacle(path: str) -> str:
    try:
        os.stat(path)
    except NotADirectoryError:
        while not os.path.exists(path):
            path = os.path.dirname(path)
        return path
    except (OSError, ValueError):
        pass  # not there yet, or not for us to see
    return ""


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
