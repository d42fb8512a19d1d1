{{/* Files of the picker's configuration: name → text. */}}
{{- define "epp.configFiles" -}}
{{- $epp := .Values.router.epp -}}
{{- $files := dict "default-plugins.yaml" (include "epp.defaultConfig" .) "payload-agnostic.yaml" (include "epp.payloadAgnostic" .) -}}
{{- if $epp.pluginsConfig }}{{ $_ := set $files $epp.pluginsConfigFile (toYaml $epp.pluginsConfig) }}{{ end -}}
{{- toYaml (mergeOverwrite $files (deepCopy $epp.pluginsCustomConfig)) -}}
{{- end }}

{{- define "epp.parsers" -}}
{{- $servers := .Values.router.modelServers -}}
{{- if .Values.router.epp.parsers -}}
{{- join "," .Values.router.epp.parsers -}}
{{- else if .Values.router.epp.parser -}}
{{- .Values.router.epp.parser -}}
{{- else if and (eq $servers.type "vllm") (eq $servers.protocol "grpc") -}}
vllmgrpc-parser
{{- else if eq $servers.type "triton" -}}
passthrough-parser
{{- end -}}
{{- end }}

{{- define "epp.defaultConfig" -}}
{{- $source := .Values.router.epp.metricsDataSource -}}
{{- $parsers := include "epp.parsers" . | splitList "," | compact -}}
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: metrics-data-source
  parameters:
    scheme: {{ $source.scheme | quote }}
    path: {{ $source.path | quote }}
    insecureSkipVerify: {{ $source.insecureSkipVerify }}
- type: core-metrics-extractor
  parameters:
    defaultEngine: {{ .Values.router.modelServers.type | quote }}
{{- range $parsers }}
- type: {{ . }}
{{- end }}
{{- with $parsers }}
requestHandler:
  parsers:
{{- range . }}
  - pluginRef: {{ . }}
{{- end }}
{{- end }}
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
    weight: 2
  - pluginRef: kv-cache-utilization-scorer
    weight: 2
  - pluginRef: prefix-cache-scorer
    weight: 3
{{- end }}

{{- define "epp.payloadAgnostic" -}}
# For bodies that no parser understands: nothing in them is read, the least busy endpoint is picked.
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: passthrough-parser
- type: active-request-scorer
- type: queue-scorer
requestHandler:
  parsers:
  - pluginRef: passthrough-parser
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: active-request-scorer
    weight: 1
  - pluginRef: queue-scorer
    weight: 1
{{- end }}
