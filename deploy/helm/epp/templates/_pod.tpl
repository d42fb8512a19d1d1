{{/* Containers: the picker, and Envoy beside it or in pods of its own. */}}

{{- define "epp.arguments" -}}
{{- $epp := .Values.router.epp -}}
{{- if include "epp.poolName" . }}
- --pool-name={{ include "epp.poolName" . }}
- --pool-namespace={{ .Release.Namespace }}
- --pool-group=inference.networking.k8s.io
{{- else }}
{{- $pairs := list }}
{{- range $key, $value := .Values.router.modelServers.matchLabels }}{{ $pairs = append $pairs (printf "%s=%s" $key $value) }}{{ end }}
{{- $ports := list }}
{{- range .Values.router.modelServers.targetPorts }}{{ $ports = append $ports (toString .number) }}{{ end }}
- --endpoint-selector={{ join "," $pairs }}
- --endpoint-target-ports={{ join "," $ports }}
{{- end }}
- --config-file=/config/{{ $epp.pluginsConfigFile }}
{{- if $epp.pluginFiles }}
- --plugins-path=/plugins
{{- end }}
- --grpc-port={{ $epp.extProcPort }}
- --grpc-health-port={{ $epp.grpcHealthPort }}
- --metrics-port={{ .Values.router.metricsPort }}
{{- if and (include "epp.leads" .) (not (hasKey $epp.flags "ha-enable-leader-election")) }}
- --ha-enable-leader-election
{{- end }}
{{- range $flag, $value := $epp.flags }}
{{- /* Helm holds whole numbers as floats, which print as 1e+06. */}}
{{- $whole := and (kindIs "float64" $value) (eq (toString (floor $value)) (toString $value)) }}
- {{ printf "--%s=%v" $flag ($whole | ternary (toString (int64 $value)) $value) | quote }}
{{- end }}
- --tracing={{ .Values.router.tracing.enabled }}
{{- if not .Values.router.monitoring.prometheus.auth.enabled }}
- --metrics-endpoint-auth=false
{{- end }}
{{- end }}

{{/* Leaders let go of their lease at SIGTERM: the sooner, the shorter nobody leads. */}}
{{- define "epp.preStop" -}}
{{- if include "epp.leads" . -}}
0
{{- else if include "epp.sidecar" . -}}
{{- max .Values.router.epp.preStopSleepSeconds .Values.router.proxy.preStopSleepSeconds -}}
{{- else -}}
{{- .Values.router.epp.preStopSleepSeconds -}}
{{- end -}}
{{- end }}

{{- define "epp.container" -}}
{{- $epp := .Values.router.epp -}}
name: epp
image: {{ include "epp.image" . }}
imagePullPolicy: {{ $epp.image.pullPolicy }}
args:
{{- include "epp.arguments" . }}
env:
- name: NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- if .Values.router.tracing.enabled }}
{{- include "epp.tracingEnv" . | nindent 0 }}
{{- end }}
{{- with $epp.env }}
{{- toYaml . | nindent 0 }}
{{- end }}
ports:
- {name: grpc, containerPort: {{ $epp.extProcPort }}}
- {name: grpc-health, containerPort: {{ $epp.grpcHealthPort }}}
- {name: metrics, containerPort: {{ .Values.router.metricsPort }}}
{{- with $epp.extraContainerPorts }}
{{- toYaml . | nindent 0 }}
{{- end }}
livenessProbe:
  grpc: {port: {{ $epp.grpcHealthPort }}, service: liveness}
  initialDelaySeconds: 5
  periodSeconds: 10
readinessProbe:
  grpc: {port: {{ $epp.grpcHealthPort }}, service: readiness}
  periodSeconds: 2
{{- if gt (include "epp.preStop" . | int) 0 }}
lifecycle:
  preStop:
    exec: {command: [/bin/sleep, {{ include "epp.preStop" . | quote }}]}
{{- end }}
{{- with $epp.resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- toYaml $epp.securityContext | nindent 2 }}
volumeMounts:
- {name: config, mountPath: /config, readOnly: true}
{{- if $epp.pluginFiles }}
- {name: plugins, mountPath: /plugins, readOnly: true}
{{- end }}
{{- with $epp.volumeMounts }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{- define "epp.tracingEnv" -}}
- name: OTEL_SERVICE_NAME
  value: llm-d-router/epp
- name: OTEL_TRACES_EXPORTER
  value: otlp
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .Values.router.tracing.otelExporterEndpoint | quote }}
- name: OTEL_TRACES_SAMPLER
  value: {{ .Values.router.tracing.sampling.sampler | quote }}
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ .Values.router.tracing.sampling.samplerArg | quote }}
- name: OTEL_RESOURCE_ATTRIBUTES_NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name=$(NAMESPACE),k8s.node.name=$(OTEL_RESOURCE_ATTRIBUTES_NODE_NAME),k8s.pod.name=$(POD_NAME)
{{- end }}

{{- define "epp.envoyContainer" -}}
{{- $proxy := .Values.router.proxy -}}
name: envoy
image: {{ $proxy.image }}
imagePullPolicy: {{ $proxy.imagePullPolicy }}
command: [envoy]
args:
- --config-path
- /etc/envoy/envoy.yaml
- --service-node
- envoy-proxy
- --log-level
- warn
- --cpuset-threads
# It would share memory with the Envoy it replaces, in a file system that nobody may write to.
- --disable-hot-restart
- --drain-strategy
- immediate
{{- with $proxy.extraArgs }}
{{- toYaml . | nindent 0 }}
{{- end }}
ports:
- {name: http, containerPort: {{ $proxy.port }}}
- {name: envoy-metrics, containerPort: 19001}
readinessProbe:
  httpGet: {path: /ready, port: envoy-metrics}
  periodSeconds: 5
  failureThreshold: 1
{{- if $proxy.preStopSleepSeconds }}
# The image has no shell and no sleep.
lifecycle:
  preStop:
    sleep: {seconds: {{ $proxy.preStopSleepSeconds }}}
{{- end }}
{{- with $proxy.resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- toYaml $proxy.securityContext | nindent 2 }}
volumeMounts:
- {name: envoy, mountPath: /etc/envoy, readOnly: true}
{{- end }}

{{/* Where pods stand: what is given, else apart from each other. The argument: root, labels, given. */}}
{{- define "epp.placement" -}}
{{- with .given.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- else }}
{{- if .many }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- .labels | nindent 12 }}
{{- end }}
{{- end }}
{{- with .given.topologySpreadConstraints }}
topologySpreadConstraints: {{- toYaml . | nindent 0 }}
{{- else }}
{{- if .many }}
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: topology.kubernetes.io/zone
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- .labels | nindent 6 }}
{{- end }}
{{- end }}
{{- with .given.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .given.tolerations }}
tolerations: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with .given.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}
