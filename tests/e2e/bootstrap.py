"""An Envoy bootstrap as a dict, in the shape of the llm-d standalone chart: one listener, ext_proc, one cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DESTINATION = "x-gateway-destination-endpoint"
SUBSET = "x-gateway-destination-endpoint-subset"
STAT_PREFIX = "inference"

Json = dict[str, Any]  # a bootstrap is a deep tree that only Envoy reads

_EXTENSIONS = "type.googleapis.com/envoy.extensions"
_WINDOWS = {"initial_stream_window_size": 65536, "initial_connection_window_size": 1048576}
_BREAKERS = {
    "thresholds": [
        {"max_connections": 40000, "max_pending_requests": 40000, "max_requests": 40000, "max_retries": 1024}
    ]
}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How one Envoy is set up; the defaults are what gateways generate for an InferencePool."""

    picker_port: int
    picker_tls: bool = False
    """TLS without verification, as the gateways do it."""
    port: int = 0
    """0: Envoy chooses a free one; ask the running Envoy which."""
    request_body: str = "FULL_DUPLEX_STREAMED"
    response_body: str = "FULL_DUPLEX_STREAMED"
    headers: str = "SEND"
    trailers: str = "SEND"
    response_headers: str = ""
    """SKIP: Envoy shows no headers of responses; "" as `headers` says."""
    response_trailers: str = ""
    send_body_early: bool = False
    """send_body_without_waiting_for_header_response."""
    observe: bool = False
    deferred_close_s: float = 5.0
    """How long an observed stream stays open after its request."""
    fail_open: bool = False
    status_on_error: int = 503
    """0: leave it to Envoy (500)."""
    message_timeout_s: float = 1000.0
    grpc_timeout_s: float = 10.0
    metadata: bool = True
    """Forward and accept dynamic metadata of the envoy.lb namespaces."""
    subset: tuple[str, ...] | None = None
    """A filter before ext_proc writes this subset hint."""
    destination: str = "original_dst"
    """original_dst (by header) or override_host (by metadata, then header, among `endpoints`)."""
    endpoints: tuple[str, ...] = ()
    upstream_http2: bool = False
    buffer_bytes: int = 32768
    route_timeout_s: float = 86400.0
    websocket: bool = True
    envoy_headers: bool = True
    """False: suppress_envoy_headers, as the llm-d standalone chart has it."""
    allow_mode_override: bool = False


def bootstrap(setup: Setup) -> Json:
    """The whole file; the admin port is always ephemeral."""
    return {
        "admin": {"address": _address("127.0.0.1", 0)},
        "static_resources": {
            "listeners": [_listener(setup)],
            "clusters": [_picker_cluster(setup), _endpoints_cluster(setup)],
        },
    }


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def _typed(kind: str, **fields: Any) -> Json:  # fields of any Envoy message
    return {"@type": f"{_EXTENSIONS}.{kind}", **fields}


def _listener(setup: Setup) -> Json:
    manager = _typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=STAT_PREFIX,
        http_filters=_http_filters(setup),
        route_config=_routes(setup),
        use_remote_address=True,
        normalize_path=True,
        merge_slashes=True,
        server_header_transformation="PASS_THROUGH",
        common_http_protocol_options={"headers_with_underscores_action": "REJECT_REQUEST"},
        http2_protocol_options={"max_concurrent_streams": 1000, **_WINDOWS},
        upgrade_configs=[{"upgrade_type": "websocket"}] if setup.websocket else [],
    )
    return {
        "name": "inference",
        "address": _address("127.0.0.1", setup.port),
        "per_connection_buffer_limit_bytes": setup.buffer_bytes,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _routes(setup: Setup) -> Json:
    timeout = f"{setup.route_timeout_s}s"
    route = {"cluster": "endpoints", "timeout": timeout, "idle_timeout": timeout}
    return {
        "name": "inference",
        "virtual_hosts": [
            {"name": "inference", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
        ],
    }


def _http_filters(setup: Setup) -> list[Json]:
    router = _typed("filters.http.router.v3.Router", suppress_envoy_headers=not setup.envoy_headers)
    return [
        *([_subset_filter(setup.subset)] if setup.subset is not None else []),
        {"name": "envoy.filters.http.ext_proc", "typed_config": _ext_proc(setup)},
        {"name": "envoy.filters.http.router", "typed_config": router},
    ]


def _subset_filter(subset: tuple[str, ...]) -> Json:
    hint = {"metadata_namespace": "envoy.lb.subset_hint", "value": {SUBSET: list(subset)}}
    config = _typed("filters.http.set_metadata.v3.Config", metadata=[hint])
    return {"name": "envoy.filters.http.set_metadata", "typed_config": config}


def _ext_proc(setup: Setup) -> Json:
    timeout = f"{setup.message_timeout_s}s"
    config = _typed(
        "filters.http.ext_proc.v3.ExternalProcessor",
        grpc_service={
            "envoy_grpc": {"cluster_name": "picker", "authority": "localhost:9002"},
            "timeout": f"{setup.grpc_timeout_s}s",
        },
        processing_mode=_processing_mode(setup),
        message_timeout=timeout,
        failure_mode_allow=setup.fail_open,
        observability_mode=setup.observe,
        deferred_close_timeout=f"{setup.deferred_close_s}s",
        allow_mode_override=setup.allow_mode_override,
        send_body_without_waiting_for_header_response=setup.send_body_early,
    )
    if setup.status_on_error:
        config["status_on_error"] = {"code": setup.status_on_error}
    if setup.metadata:
        config["metadata_options"] = {
            "forwarding_namespaces": {"untyped": ["envoy.lb", "envoy.lb.subset_hint"]},
            "receiving_namespaces": {"untyped": ["envoy.lb"]},
        }
    return config


def _processing_mode(setup: Setup) -> Json:
    return {
        "request_header_mode": setup.headers,
        "response_header_mode": setup.response_headers or setup.headers,
        "request_body_mode": setup.request_body,
        "response_body_mode": setup.response_body,
        "request_trailer_mode": setup.trailers,
        "response_trailer_mode": setup.response_trailers or setup.trailers,
    }


def _http2(**options: Any) -> Json:  # fields of Http2ProtocolOptions
    explicit = {"explicit_http_config": {"http2_protocol_options": options}}
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {kind: _typed("upstreams.http.v3.HttpProtocolOptions", **explicit)}


def _members(addresses: tuple[tuple[str, int], ...]) -> Json:
    hosts = [{"endpoint": {"address": _address(host, port)}} for host, port in addresses]
    return {"cluster_name": "members", "endpoints": [{"lb_endpoints": hosts}]}


def _picker_cluster(setup: Setup) -> Json:
    cluster: Json = {
        "name": "picker",
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": _BREAKERS,
        "typed_extension_protocol_options": _http2(**_WINDOWS),
        "load_assignment": _members((("127.0.0.1", setup.picker_port),)),
    }
    if setup.picker_tls:
        context = _typed("transport_sockets.tls.v3.UpstreamTlsContext", common_tls_context={"alpn_protocols": ["h2"]})
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return cluster


def _endpoints_cluster(setup: Setup) -> Json:
    cluster: Json = {"name": "endpoints", "connect_timeout": "5s", "circuit_breakers": _BREAKERS}
    if setup.upstream_http2:
        cluster["typed_extension_protocol_options"] = _http2()
    chosen = _by_override_host(setup) if setup.destination == "override_host" else _by_original_dst()
    return cluster | chosen


def _by_original_dst() -> Json:
    return {
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": DESTINATION},
    }


def _by_override_host(setup: Setup) -> Json:
    round_robin = _policy("round_robin", _typed("load_balancing_policies.round_robin.v3.RoundRobin"))
    override = _typed(
        "load_balancing_policies.override_host.v3.OverrideHost",
        override_host_sources=[
            {"metadata": {"key": "envoy.lb", "path": [{"key": DESTINATION}]}},
            {"header": DESTINATION},
        ],
        fallback_policy={"policies": [round_robin]},
    )
    addresses = tuple((host, int(port)) for host, port in (e.rsplit(":", 1) for e in setup.endpoints))
    return {
        "type": "STATIC",
        "load_assignment": _members(addresses),
        "load_balancing_policy": {"policies": [_policy("override_host", override)]},
    }


def _policy(name: str, config: Json) -> Json:
    full = f"envoy.load_balancing_policies.{name}"
    return {"typed_extension_config": {"name": full, "typed_config": config}}
