"""Envoy: one worker, retry with a retry budget, outlier detection and circuit breakers, statistics as they come."""

import json
from pathlib import Path
from typing import Any

from benchmarks.rig.certificate import certificate
from benchmarks.rig.machine import ENVOY
from benchmarks.rig.origin import Origin
from benchmarks.rig.ports import Ports
from benchmarks.rig.routes import ROUTES, STREAMS_ROUTE

_TYPES = "type.googleapis.com/envoy.extensions.filters"


class Envoy:
    name = "envoy"
    routes = True

    def command(self, directory: Path, ports: Ports, origin: Origin) -> list[str]:
        clusters = [_cluster("files", origin.files), _cluster("streams", origin.streams), _cluster("echo", origin.echo)]
        tcp = {"@type": f"{_TYPES}.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "tcp", "cluster": "echo"}
        config = directory / "envoy.json"
        config.write_text(
            json.dumps(
                {
                    "static_resources": {
                        "listeners": [
                            _listener("inbound", ports.files, "envoy.filters.network.http_connection_manager", _http()),
                            _secured(
                                _listener(
                                    "secure", ports.tls, "envoy.filters.network.http_connection_manager", _http()
                                ),
                                str(certificate(directory)),
                            ),
                            _listener("tcp", ports.tcp, "envoy.filters.network.tcp_proxy", tcp),
                        ],
                        "clusters": clusters,
                    }
                }
            )
        )
        fixed = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        return [str(ENVOY), "-c", str(config), *fixed]


def _http() -> dict[str, Any]:
    return {
        "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "inbound",
        "use_remote_address": True,
        "request_headers_timeout": "10s",
        "stream_idle_timeout": "300s",
        "common_http_protocol_options": {"idle_timeout": "75s"},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [_route(r) for r in ROUTES]}]},
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_TYPES}.http.router.v3.Router"}}
        ],
    }


def _route(prefix: str) -> dict[str, Any]:
    return {
        "match": {"prefix": f"{prefix}/"},
        "route": {
            "cluster": "streams" if prefix == STREAMS_ROUTE else "files",
            "timeout": "15s",
            "retry_policy": {
                "retry_on": "connect-failure,reset,retriable-status-codes",
                "retriable_status_codes": [502, 503, 504],
                "num_retries": 1,
                "per_try_timeout": "5s",
            },
        },
    }


def _listener(name: str, port: int, filter_name: str, typed_config: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "address": _address(port),
        "filter_chains": [{"filters": [{"name": filter_name, "typed_config": typed_config}]}],
    }


def _secured(listener: dict[str, Any], pem: str) -> dict[str, Any]:
    tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    file = {"filename": pem}
    common = {
        "tls_certificates": [{"certificate_chain": file, "private_key": file}],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["http/1.1"],
    }
    listener["filter_chains"][0]["transport_socket"] = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": tls, "common_tls_context": common},
    }
    return listener


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "outlier_detection": {"consecutive_5xx": 5},
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 1024,
                    "max_pending_requests": 1024,
                    "max_requests": 1024,
                    "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 3},
                }
            ]
        },
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
