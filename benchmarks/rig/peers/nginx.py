"""nginx: one worker, keep-alive pool of 256, bodies streamed in both directions instead of spooled."""

from pathlib import Path

from benchmarks.rig.certificate import certificate
from benchmarks.rig.origin import Origin
from benchmarks.rig.ports import Ports
from benchmarks.rig.routes import ROUTES, STREAMS_ROUTE

_STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

_CONFIG = """
{load_stream}
worker_processes 1;
daemon off;
pid {dir}/pid;
error_log {dir}/error.log warn;
worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  tcp_nodelay on;
  keepalive_timeout 75s;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  client_header_timeout 10s;
  client_body_timeout 30s;
  send_timeout 60s;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream files {{ server 127.0.0.1:{files}; keepalive 256; keepalive_requests 1000000000; }}
  upstream streams {{ server 127.0.0.1:{streams}; keepalive 256; keepalive_requests 1000000000; }}
  proxy_http_version 1.1;
  proxy_set_header Host $http_host;
  proxy_set_header Connection $connection_upgrade;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Request-Id $request_id;
  proxy_connect_timeout 1s;
  proxy_read_timeout 15s;
  proxy_next_upstream error timeout http_502 http_503 http_504;
  proxy_next_upstream_tries 2;
  proxy_request_buffering off;
  proxy_max_temp_file_size 0;
  server {{
    listen 127.0.0.1:{listen} backlog=4096;
    listen 127.0.0.1:{tls} backlog=4096 ssl;
    ssl_certificate {pem};
    ssl_certificate_key {pem};
    ssl_protocols TLSv1.3;
{locations}
  }}
}}
{stream}
"""


class Nginx:
    name = "nginx"
    routes = True

    def command(self, directory: Path, ports: Ports, origin: Origin) -> list[str]:
        locations = "\n".join(
            f"    location {route}/ {{ proxy_pass http://{'streams' if route == STREAMS_ROUTE else 'files'}; }}"
            for route in ROUTES
        )
        # Debian ships the module for bare TCP apart; without it nginx takes no part in that one work.
        stream = f"stream {{ server {{ listen 127.0.0.1:{ports.tcp}; proxy_pass 127.0.0.1:{origin.echo}; }} }}"
        has_stream = _STREAM_MODULE.exists()
        config = directory / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                load_stream=f"load_module {_STREAM_MODULE};" if has_stream else "",
                stream=stream if has_stream else "",
                dir=directory,
                listen=ports.files,
                tls=ports.tls,
                pem=certificate(directory),
                files=origin.files,
                streams=origin.streams,
                locations=locations,
            )
        )
        return ["nginx", "-e", str(directory / "error.log"), "-c", str(config)]
