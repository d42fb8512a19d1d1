{{/*
Envoy's configuration: deploy/standalone/envoy.yaml, which tells why each setting is as it is. A test compares the two.
Other than there: the picker may be another pod, the model servers may speak HTTP/2, and failOpen has somewhere to go.
*/}}
{{- define "epp.envoy" -}}
{{- $service := include "epp.proxyService" . -}}
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: 19000}}

static_resources:
  listeners:
  - name: inference
    address: {socket_address: {address: 0.0.0.0, port_value: {{ .Values.router.proxy.port }}}}
    per_connection_buffer_limit_bytes: 32768
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: inference
          use_remote_address: true
          normalize_path: true
          merge_slashes: true
          path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT
          server_header_transformation: PASS_THROUGH
          common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}
          http2_protocol_options:
            max_concurrent_streams: 100
            initial_stream_window_size: 65536
            initial_connection_window_size: 1048576
          early_header_mutation_extensions:
          - name: strip-routing-headers
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
              mutations:
              - remove: x-gateway-destination-endpoint
              - remove: x-gateway-destination-endpoint-subset
              - remove: x-prefiller-host-port
              - remove: x-encoder-hosts-ports
              - remove: x-data-parallel-host-port
              - remove: x-kv-cache-source-host-port
          upgrade_configs:
          - upgrade_type: websocket
          route_config:
            name: inference
            virtual_hosts:
            - name: inference
              domains: ["*"]
              routes:
              - match: {prefix: /}
                route: {cluster: endpoints, timeout: {{ .Values.router.proxy.routeTimeout }}, idle_timeout: {{ .Values.router.proxy.routeTimeout }}}
          http_filters:
          - name: envoy.filters.http.ext_proc
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor
              grpc_service:
                envoy_grpc: {cluster_name: picker, authority: "localhost:{{ .Values.router.epp.extProcPort }}"}
                timeout: 10s
              failure_mode_allow: {{ .Values.router.proxy.failOpen }}
              status_on_error: {code: 503}
              message_timeout: 1000s
              processing_mode:
                request_header_mode: SEND
                request_body_mode: FULL_DUPLEX_STREAMED
                request_trailer_mode: SEND
                response_header_mode: SEND
                response_body_mode: FULL_DUPLEX_STREAMED
                response_trailer_mode: SEND
              metadata_options:
                forwarding_namespaces: {untyped: [envoy.lb, envoy.lb.subset_hint]}
                receiving_namespaces: {untyped: [envoy.lb]}
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router

  - name: ready
    address: {socket_address: {address: 0.0.0.0, port_value: 19001}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ready
          route_config:
            name: ready
            virtual_hosts:
            - name: ready
              domains: ["*"]
              routes:
              - match: {path: /ready}
                route: {cluster: admin}
              - match: {path: /stats/prometheus}
                route: {cluster: admin}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router

  clusters:
  - name: picker
{{- if $service }}
    # Every ready picker has an address of its own under this name; a standby gets one when it leads.
    type: STRICT_DNS
    dns_refresh_rate: 2s
{{- else }}
    type: STATIC
{{- end }}
    connect_timeout: 5s
    lb_policy: LEAST_REQUEST
{{- if .Values.router.proxy.failOpen }}
    # Never try a picker that is known to be away: once a piece of a body has been sent to it, a request can only fail.
    common_lb_config: {healthy_panic_threshold: {value: 0}}
{{- end }}
    circuit_breakers: &many
      thresholds: [{max_connections: 40000, max_pending_requests: 40000, max_requests: 40000, max_retries: 1024}]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions: &http2
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options: {initial_stream_window_size: 65536, initial_connection_window_size: 1048576}
    health_checks:
    - timeout: 2s
      interval: {{ .Values.router.proxy.failOpen | ternary "2s" "10s" }}
{{- if .Values.router.proxy.failOpen }}
      # Else an idle Envoy looks once a minute.
      no_traffic_interval: 2s
{{- end }}
      unhealthy_threshold: {{ .Values.router.proxy.failOpen | ternary 2 3 }}
      healthy_threshold: 2
      grpc_health_check: {service_name: envoy.service.ext_proc.v3.ExternalProcessor}
{{- if include "epp.secure" . }}
      tls_options: {alpn_protocols: [h2]}
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context: {alpn_protocols: [h2]}
{{- end }}
    load_assignment:
      cluster_name: picker
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: {{ empty $service | ternary "127.0.0.1" (printf "%s-pods.%s.svc.%s" (include "epp.name" .) .Release.Namespace .Values.router.clusterDomain) }}, port_value: {{ .Values.router.epp.extProcPort }}}}}

  - name: endpoints
{{- if .Values.router.proxy.failOpen }}
    # The picked endpoint if it is one of the Service's, else the least busy of them: also when nobody picked.
    type: STRICT_DNS
    dns_refresh_rate: 2s
    connect_timeout: 5s
    load_balancing_policy:
      policies:
      - typed_extension_config:
          name: envoy.load_balancing_policies.override_host
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost
            override_host_sources: [{header: x-gateway-destination-endpoint}]
            fallback_policy:
              policies:
              - typed_extension_config:
                  name: envoy.load_balancing_policies.least_request
                  typed_config:
                    "@type": type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest
    load_assignment:
      cluster_name: endpoints
      endpoints:
      - lb_endpoints:
{{- range .Values.router.modelServers.targetPorts }}
        - endpoint: {address: {socket_address: {address: {{ printf "%s-endpoints.%s.svc.%s" (include "epp.name" $) $.Release.Namespace $.Values.router.clusterDomain }}, port_value: {{ .number }}}}}
{{- end }}
{{- else }}
    type: ORIGINAL_DST
    connect_timeout: 5s
    lb_policy: CLUSTER_PROVIDED
    original_dst_lb_config: {use_http_header: true, http_header_name: x-gateway-destination-endpoint}
{{- end }}
{{- if eq .Values.router.modelServers.protocol "grpc" }}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions: *http2
{{- end }}
    circuit_breakers: *many

  - name: admin
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: admin
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 19000}}}
{{- end }}
