"""Where spans go, and of how many requests."""

from typing import Annotated

from sidecar.config.kinds import Doc, HttpUrl, Path, Positive, Ratio, Section


class Otlp(Section, frozen=True, kw_only=True):
    """A collector that takes OTLP over HTTP with JSON."""

    url: Annotated[HttpUrl, Doc("Its address for traces, such as http://collector:4318/v1/traces.")]
    token_file: Annotated[Path | None, Doc("A file with a bearer token, read at each delivery.")] = None


class Tracing(Section, frozen=True, kw_only=True):
    """A span per request, for those that are sampled."""

    otlp: Annotated[Otlp, Doc("Where spans are sent.")]
    sample: Annotated[
        Ratio,
        Doc(
            "The share of requests without a traceparent that is traced. One that comes with a traceparent is traced "
            "when its caller says so.",
            "OpenTelemetry: parent-based, ratio at the root",
        ),
    ] = 0.01
    queue: Annotated[
        Positive, Doc("So many spans wait at most; what comes beyond is dropped and counted.", "OpenTelemetry: 2048")
    ] = 2048
