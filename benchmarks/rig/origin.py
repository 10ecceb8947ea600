"""The origins behind every proxy, on the load's core: nginx for files and POSTs, `streams` for the rest.

The 1 GiB file is sparse and lies in memory, so that no disk is measured.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rig.machine import ROOT, cores
from benchmarks.rig.process import Process, free_port, running
from benchmarks.rig.routes import FILES_ROUTE

GIB = 1 << 30

_NGINX = """
worker_processes 1;
daemon off;
pid {dir}/origin.pid;
error_log {dir}/origin-error.log warn;
worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  tcp_nodelay on;
  keepalive_timeout 3600s;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  open_file_cache max=16;
  open_file_cache_valid 3600s;
  client_body_temp_path {dir}/origin-body;
  proxy_temp_path {dir}/origin-proxy;
  fastcgi_temp_path {dir}/origin-fastcgi;
  uwsgi_temp_path {dir}/origin-uwsgi;
  scgi_temp_path {dir}/origin-scgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    root {dir}/www;
    location {route}/ {{ }}
    location = {route}/post {{ return 200 "stored\\n"; }}
  }}
}}
"""


@dataclass(frozen=True)
class Origin:
    """Ports of 127.0.0.1: `files` (nginx), `streams` (HTTP) and `echo` (bare TCP)."""

    files: int
    streams: int
    echo: int


@contextmanager
def origins() -> Iterator[tuple[Path, Origin]]:
    """Starts both origins; gives a scratch directory in memory and their ports. All of it is gone at the end."""
    shared_memory = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=shared_memory if shared_memory.is_dir() else None))
    directory.chmod(0o755)  # nginx's worker is not root
    load_core, _ = cores()
    try:
        with ExitStack() as stack:
            files_port, streams_port, echo_port = free_port(), free_port(), free_port()
            _files(directory / "www" / FILES_ROUTE.strip("/"))
            config = directory / "origin.conf"
            config.write_text(_NGINX.format(dir=directory, port=files_port, route=FILES_ROUTE))
            nginx = ["nginx", "-e", str(directory / "origin-error.log"), "-c", str(config)]
            files = stack.enter_context(running(Process("origin", nginx, load_core, directory / "origin.log")))
            streams = stack.enter_context(
                running(
                    Process(
                        "streams",
                        [sys.executable, "-m", "benchmarks.rig.streams", str(streams_port), str(echo_port)],
                        load_core,
                        directory / "streams.log",
                        env={"PYTHONPATH": str(ROOT)},
                    )
                )
            )
            files.wait_listening(files_port)
            streams.wait_listening(echo_port)
            yield directory, Origin(files_port, streams_port, echo_port)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _files(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "1k").write_bytes(b"k" * 1024)
    (directory / "64k").write_bytes(b"K" * 65536)
    with (directory / "1g").open("wb") as sparse:
        sparse.truncate(GIB)
