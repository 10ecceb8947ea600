"""Tracing of one serving process: makes the data plane's tracer and the task that delivers its spans."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.config.document import Config
    from sidecar.config.tracing import Tracing as TracingConfig
    from sidecar.proxy.dataplane import DataPlane
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.tasks import Supervisor


class Tracing:
    """Follows `tracing:` through reloads; what an old queue still holds is delivered by its own task."""

    def __init__(self, plane: DataPlane, registry: Registry, tasks: Supervisor) -> None:
        self._plane = plane
        self._registry = registry
        self._tasks = tasks
        self._config: TracingConfig | None = None
        self._made = 0

    def apply(self, config: Config) -> None:
        """Trace as `config` says from the next request on."""
        wanted = config.tracing
        if wanted == self._config:
            return
        if self._config is not None:
            self._tasks.cancel(f"spans-{self._made}")
        self._config = wanted
        if wanted is None:
            self._plane.tracer = None
            return
        from sidecar.proxy.trace import Tracer
        from sidecar.runtime.otlp import OtlpExporter, SpanQueue

        queue = SpanQueue(wanted.queue, self._registry)
        resource = {
            "service.name": config.service.name,
            "service.instance.id": config.service.instance or socket.gethostname(),
        }
        exporter = OtlpExporter(queue, wanted.otlp.url, wanted.otlp.token_file, resource, self._registry)
        self._made += 1
        self._tasks.start(f"spans-{self._made}", exporter.run)
        self._plane.tracer = Tracer(queue, wanted.sample)
