"""The store in S3 or what speaks it, by obstore.

Answers of 5xx, time-outs and cut connections are tried again for three minutes by the library. Wrong or missing
credentials are WrongKey, a bucket that is not there is told as such. Not every server honours conditional writes: `new`
is asked for and not relied on; whoever needs exclusion uses the lease, which does not need it.
"""

from __future__ import annotations

import contextlib
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sidecar.agent.faults import EngineFailure, StorageFailure, WrongKey
from sidecar.agent.repository.store import Exists, Missing, Object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.config.backup import Repository

_RETRY_SECONDS = 180
_SLOWEST = 8_000
"""Bytes a second below which a link counts as dead."""


class S3Store:
    """A bucket, or what is below a prefix of it."""

    def __init__(self, config: Repository, *, retry_seconds: float = _RETRY_SECONDS) -> None:
        try:
            from obstore import exceptions
            from obstore.store import S3Store as Bucket
        except ImportError:
            raise EngineFailure("an s3:// repository needs obstore: pip install 'sidecar[all]'") from None
        self.url = config.url
        self._errors = exceptions
        bucket, _, prefix = config.url.removeprefix("s3://").partition("/")
        prefix = prefix.strip("/")
        options: dict[str, Any] = {}
        s3 = config.s3
        if s3 is not None:
            secrets = {
                "access_key_id": s3.access_key_id_file,
                "secret_access_key": s3.secret_access_key_file,
                "session_token": s3.session_token_file,
            }
            options = {key: read_secret(file) for key, file in secrets.items() if file}
            if s3.endpoint:
                options |= {"endpoint": s3.endpoint, "virtual_hosted_style_request": False}
            if s3.region or s3.endpoint:
                options["region"] = s3.region or "us-east-1"
        retry = {
            "max_retries": 20,
            "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=5), "base": 2},
            "retry_timeout": timedelta(seconds=retry_seconds),
        }

        def open_bucket(timeout: float) -> Any:
            return Bucket(
                bucket,
                prefix=prefix or None,
                client_options={
                    "allow_http": bool(s3 and s3.endpoint and s3.endpoint.startswith("http://")),
                    "timeout": timedelta(seconds=timeout),
                    "connect_timeout": timedelta(seconds=10),
                },
                retry_config=retry,  # type: ignore[arg-type]  # the library's own shape
                **options,
            )

        self._open = open_bucket
        self._buckets: dict[int, Any] = {}

    def put(self, name: str, data: bytes, *, new: bool = False, durable: bool = True) -> None:
        del durable  # an acknowledged object is as durable as it gets
        with self._told(f"write {name}"):
            self._bucket(len(data)).put(name, data, mode="create" if new else "overwrite", use_multipart=False)

    def get(self, name: str) -> bytes:
        with self._told(f"read {name}"):
            found = self._bucket(1 << 23).get(name)
            return bytes(found.bytes())

    def size(self, name: str) -> int | None:
        try:
            with self._told(f"look at {name}"):
                return int(self._bucket(0).head(name)["size"])
        except Missing:
            return None

    def list(self, prefix: str = "") -> Iterator[Object]:
        with self._told(f"list {prefix or 'it'}"):
            for batch in self._bucket(0).list(prefix or None):
                for found in batch:
                    yield Object(found["path"], found["size"])

    def delete(self, name: str) -> None:
        with contextlib.suppress(Missing), self._told(f"delete {name}"):
            self._bucket(0).delete(name)

    def apart(self) -> S3Store:
        return self

    def heal(self) -> None:
        """An object appears as a whole or not at all: there is nothing to heal."""

    def _bucket(self, size: int) -> Any:
        """A client whose patience fits so many bytes on a slow link."""
        seconds = 60 if size <= 60 * _SLOWEST else 60 * (1 + size // (60 * _SLOWEST))
        if seconds not in self._buckets:
            self._buckets[seconds] = self._open(seconds)
        return self._buckets[seconds]

    @contextlib.contextmanager
    def _told(self, deed: str) -> Iterator[None]:
        errors = self._errors
        try:
            yield
        except (errors.AlreadyExistsError, errors.PreconditionError):
            raise Exists(f"{deed}: it is there already") from None
        except (FileNotFoundError, errors.NotFoundError) as error:
            if "NoSuchBucket" in str(error):
                raise StorageFailure(f"cannot {deed}: there is no such bucket as {self.url} names; create it") from None
            raise Missing(f"cannot {deed}: it is missing in {self.url}") from None
        except (errors.PermissionDeniedError, errors.UnauthenticatedError) as error:
            raise WrongKey(
                f"cannot {deed} in {self.url}: the store refuses the credentials ({_code(error)}); "
                "look at repository.s3.access_key_id_file and secret_access_key_file, or the bucket's policy"
            ) from None
        except (errors.BaseError, OSError, ValueError) as error:
            raise StorageFailure(f"cannot {deed} in {self.url}: {_code(error)}") from None


def read_secret(file: str) -> str:
    """What a secret file says, without the line's end."""
    try:
        with open(file, encoding="utf-8") as stream:
            return stream.read(65_536).strip()
    except (OSError, UnicodeError) as error:
        raise StorageFailure(f"cannot read {file}: {getattr(error, 'strerror', None) or 'not text'}") from None


def _code(error: BaseException) -> str:
    """The server's word for it, without the library's diagnostics."""
    text = str(error)
    found = re.search(r"<Code>(\w+)</Code>", text) or re.search(r"status code: (\d{3} [\w ]+)", text)
    if found:
        return found[1]
    first = text.partition("\n")[0]
    return first if len(first) <= 200 else first[:197] + "..."
