"""The program restic: how it is called, and what its failures mean.

It is given the password by file, a store's credentials by its own environment, and keeps its cache in the agent's
state. Before 0.17 everything that fails ends with 1, so its words are read; from then on 10 (no repository), 11
(locked) and 12 (wrong password) say it. 3 is a backup from which something is missing that could not be read: an error
here, unless nothing but files is missing that went while others were read.

A pack that is not there is asked for again for minutes: that is not waited for.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from sidecar.agent.children import Ended, environment, run
from sidecar.agent.faults import (
    AgentFault,
    Damaged,
    EngineFailure,
    Locked,
    NoRepository,
    StorageFailure,
    WrongKey,
)
from sidecar.config.backup import S3, Repository

_PROGRAM = "restic"
STALE = timedelta(minutes=30)
"""After which restic holds another machine's lock for a dead one's; only then does plain `unlock` remove it."""
_PASSED_ON = ("AWS_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_")
"""What a pod's own identity, or its way out, is told by; given on for a store that is reached over the network."""
_GONE = re.compile(r"(Load|List|Stat)\(.*retrying.*(no such file|does not exist|NoSuchKey)")
_DAMAGE = (
    r"ciphertext verification failed|hash does not match|invalid data returned|does not match, want|unexpected EOF|"
    r"unexpected file size|no such file or directory|does not exist|NoSuchKey|not found in |wrong data returned|"
    r"repository contains errors|error for tree"
)
_MEANINGS: tuple[tuple[str, type[AgentFault], str], ...] = (
    (r"wrong password or no key found", WrongKey, "the password does not open the repository's restic part"),
    (r"InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|Access Denied|InvalidAccessKey|403 Forbidden", WrongKey,
     "the store refuses the credentials; look at repository.s3, or the bucket's policy"),
    (r"no space left|quota exceeded", StorageFailure, "make room or prune, then run it again: nothing half was kept"),
    (r"read-only file system|permission denied", StorageFailure, "give this user access"),
    (r"config file already exists", EngineFailure, "it holds another restic repository; choose an empty place"),
    (_DAMAGE, Damaged, "sidecar backup verify --level read tells what is hit"),
    (r"connection refused|no such host|i/o timeout|timeout|50[0-9] |ServiceUnavailable|InternalError|reset by peer",
     StorageFailure, "the store does not answer; run it again when it does"),
)  # fmt: skip


class Restic:
    """Calls it, for one repository."""

    def __init__(self, repository: str, password_file: str, state_dir: str, secrets: Mapping[str, str]) -> None:
        """`secrets`: its environment, as far as it tells credentials. Raises EngineFailure when there is no restic."""
        if shutil.which(_PROGRAM) is None:
            raise EngineFailure("there is no restic here: install it, or write backup.repository.engine: sealed")
        self.repository = repository
        self._scratch = os.path.join(state_dir, "restic")
        self._env = environment(
            HOME=self._scratch,
            TMPDIR=self._scratch,
            RESTIC_CACHE_DIR=os.path.join(self._scratch, "cache"),
            RESTIC_PROGRESS_FPS="2",
        )
        if not repository.startswith("/"):
            self._env |= {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
        self._env |= secrets
        self._given = ("--repo", repository, "--password-file", password_file)

    def version(self) -> str:
        """As it says it, like 0.14.0."""
        said: list[bytes] = []
        ended = run([_PROGRAM, "version"], self._env, hear=said.append)
        found = re.match(rb"restic (\S+)", said[0]) if said else None
        if ended.code or found is None:
            raise EngineFailure(f"restic version failed: {'; '.join(ended.errors) or f'exit code {ended.code}'}")
        return found[1].decode(errors="replace")

    def run(
        self,
        *words: str | bytes,
        hear: Callable[[bytes], None] = lambda _line: None,
        beat: Callable[[int], None] = lambda _pid: None,
        cwd: str | None = None,
        good: Sequence[int] | None = (0,),
        patience: float | None = None,
    ) -> Ended:
        """Run one command to its end. Raises what an exit code that is not `good` means; None: they all are."""
        try:
            os.makedirs(self._scratch, mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageFailure(f"backup.state_dir: {self._scratch}: {error.strerror}; it must be writable") from None
        ended = run(
            [_PROGRAM, *self._given, *words],
            self._env,
            cwd=cwd,
            hear=hear,
            beat=beat,
            hopeless=lambda line: bool(_GONE.search(line)),
            patience=patience,
        )
        if good is not None and (ended.code not in good or ended.stopped):
            raise self.meaning(words, ended)
        return ended

    def json(self, *words: str | bytes) -> Any:
        """What a command prints as one JSON value."""
        said: list[bytes] = []
        self.run(*words, "--json", hear=said.append)
        try:
            return msgspec.json.decode(b"".join(said) or b"null")
        except msgspec.DecodeError:
            raise EngineFailure(
                f"restic {os.fsdecode(words[0])} printed what is no JSON; is it newer than 0.18?"
            ) from None

    def meaning(self, words: Sequence[str | bytes], ended: Ended) -> AgentFault:
        """The fault that an end was."""
        text = "\n".join([*ended.errors, ended.stopped])
        about = f"restic {os.fsdecode(words[0])} at {self.repository}"
        last = next((line for line in reversed(ended.errors) if line.strip()), f"exit code {ended.code}")
        said = next((line for line in reversed(ended.errors) if line.startswith("Fatal: ")), last).removeprefix(
            "Fatal: "
        )
        if ended.code == 12:
            return WrongKey(f"{about}: the password does not open it")
        if ended.code == 11 or "already locked" in text:
            return _locked(about, text)
        missing = "unable to open config file" in text and re.search(r"no such file|does not exist|NoSuchKey", text)
        if ended.code == 10 or missing:
            return NoRepository(f"{about}: restic's part of the repository is gone ({said}); put it back from a copy")
        for pattern, sort, advice in _MEANINGS:
            found = re.search(f"^.*({pattern}).*$", text, re.MULTILINE)
            if found:
                return sort(f"{about}: {found[0].strip().removeprefix('Fatal: ')[:400]}; {advice}")
        if ended.code < 0:
            return EngineFailure(f"{about}: it was killed by signal {-ended.code}; is the memory limit too small?")
        return EngineFailure(f"{about}: {said[:400]}")


def _locked(about: str, text: str) -> Locked:
    """Who holds it, and until when at most: restic renews a lock every 5 minutes while it lives."""
    who = re.search(r"already locked (.*?) \(UID", text)
    made = re.search(r"lock was created at (\S+ \S+)", text)
    until = "30 minutes after it was made"
    if made is not None:
        with contextlib.suppress(ValueError):
            until = f"{datetime.fromisoformat(made[1]) + STALE:%H:%M:%S} UTC"
    return Locked(
        f"{about}: restic's own lock is held {who[1] if who else 'by another'}; if that process is dead, the lock is "
        f"stale at {until} and is removed then"
    )


def for_restic(repository: Repository) -> tuple[str, dict[str, str]]:
    """The repository's place as restic writes it, and what of its environment opens it."""
    if repository.url.startswith("/"):
        return repository.url, {}
    from sidecar.agent.repository.store_s3 import read_secret

    s3 = repository.s3 or S3()
    endpoint = s3.endpoint or "https://s3.amazonaws.com"
    files = {
        "AWS_ACCESS_KEY_ID": s3.access_key_id_file,
        "AWS_SECRET_ACCESS_KEY": s3.secret_access_key_file,
        "AWS_SESSION_TOKEN": s3.session_token_file,
    }
    secrets = {name: read_secret(file) for name, file in files.items() if file}
    if s3.region or s3.endpoint:
        secrets["AWS_DEFAULT_REGION"] = s3.region or "us-east-1"
    return f"s3:{endpoint.rstrip('/')}/{repository.url.removeprefix('s3://').strip('/')}", secrets
