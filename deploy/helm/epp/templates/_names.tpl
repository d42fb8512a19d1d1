{{/* Names, labels, and what the values come to. Names of objects are those of the llm-d charts. */}}

{{- define "epp.name" -}}
{{ .Release.Name | lower | trunc 40 | trimSuffix "-" }}-epp
{{- end }}

{{- define "epp.proxyName" -}}
{{ include "epp.name" . }}-proxy
{{- end }}

{{- define "epp.poolName" -}}
{{ .Values.router.inferencePool.create | ternary .Release.Name .Values.router.inferencePool.name }}
{{- end }}

{{- define "epp.serviceAccount" -}}
{{ .Values.router.epp.serviceAccount.name | default (include "epp.name" .) }}
{{- end }}

{{/* Unique in the cluster. */}}
{{- define "epp.clusterName" -}}
{{ printf "%s-%s" .Release.Namespace (include "epp.name" .) }}
{{- end }}

{{- define "epp.tokenSecret" -}}
{{ .Values.router.monitoring.prometheus.auth.secretName | default (printf "%s-metrics-reader" (include "epp.name" .)) }}
{{- end }}

{{- define "epp.labels" -}}
{{ include "epp.selectorLabels" . }}
app.kubernetes.io/part-of: endpoint-picker
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "epp.selectorLabels" -}}
{{- with .Values.router.epp.selectorLabels }}
{{- toYaml . }}
{{- else -}}
app.kubernetes.io/name: {{ include "epp.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- end }}

{{- define "epp.proxySelectorLabels" -}}
app.kubernetes.io/name: {{ include "epp.proxyName" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "epp.proxyLabels" -}}
{{ include "epp.proxySelectorLabels" . }}
app.kubernetes.io/part-of: endpoint-picker
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* hub and name are how earlier charts called registry and repository. */}}
{{- define "epp.image" -}}
{{- $image := .Values.router.epp.image -}}
{{ $image.hub | default $image.registry }}/{{ $image.name | default $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The following are conditions: "true", or nothing. */}}

{{- define "epp.leads" -}}
{{- $flag := get .Values.router.epp.flags "ha-enable-leader-election" -}}
{{- if hasKey .Values.router.epp.flags "ha-enable-leader-election" -}}
{{- if eq (toString $flag) "true" }}true{{ end -}}
{{- else if and (gt (int .Values.router.epp.replicas) 1) (not .Values.router.epp.autoscaling.enabled) -}}
true
{{- end -}}
{{- end }}

{{/* Two or more pickers that all serve. */}}
{{- define "epp.manyActive" -}}
{{- $epp := .Values.router.epp -}}
{{- $least := $epp.autoscaling.enabled | ternary $epp.autoscaling.minReplicas $epp.replicas -}}
{{- if and (gt (int $least) 1) (not (include "epp.leads" .)) }}true{{ end -}}
{{- end }}

{{- define "epp.many" -}}
{{- if or (gt (int .Values.router.epp.replicas) 1) .Values.router.epp.autoscaling.enabled }}true{{ end -}}
{{- end }}

{{- define "epp.secure" -}}
{{- if ne (toString (get .Values.router.epp.flags "secure-serving")) "false" }}true{{ end -}}
{{- end }}

{{/* Metrics are shown only to whom Kubernetes allows it. */}}
{{- define "epp.reviews" -}}
{{- $flag := toString (get .Values.router.epp.flags "metrics-endpoint-auth") -}}
{{- if and .Values.router.monitoring.prometheus.auth.enabled (ne $flag "false") }}true{{ end -}}
{{- end }}

{{- define "epp.sidecar" -}}
{{- if and .Values.router.proxy.enabled (eq .Values.router.proxy.mode "sidecar") }}true{{ end -}}
{{- end }}

{{- define "epp.proxyService" -}}
{{- if and .Values.router.proxy.enabled (eq .Values.router.proxy.mode "service") }}true{{ end -}}
{{- end }}

{{- define "epp.monitor" -}}
{{- if .Values.router.monitoring.prometheus.enabled -}}
{{ .Values.router.monitoring.provider.name | default (eq .Values.provider.name "gke" | ternary "gmp" "prometheusoperator") }}
{{- end -}}
{{- end }}
