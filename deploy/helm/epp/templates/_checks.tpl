{{/* Values that exclude or need each other. What a value may be by itself is in values.schema.json. */}}

{{- define "epp.checks" -}}
{{- include "epp.checks.earlier" . -}}
{{- include "epp.checks.pool" . -}}
{{- include "epp.checks.flags" . -}}
{{- include "epp.checks.configuration" . -}}
{{- include "epp.checks.replicas" . -}}
{{- include "epp.checks.proxy" . -}}
{{- end }}

{{/* Keys of earlier charts, and parts of the llm-d charts that this one has not. */}}
{{- define "epp.checks.earlier" -}}
{{- $moved := dict
  "inferenceExtension" "router.epp, router.monitoring and router.tracing"
  "inferencePool" "router.modelServers and router.inferencePool"
  "inferenceObjectives" "router.inferenceObjectives"
  "experimentalHttpRoute" "httpRoute" -}}
{{- range $key, $place := $moved }}
{{- if hasKey $.Values $key }}{{ fail (printf "%s is of an earlier chart; its values are now in %s" $key $place) }}{{ end }}
{{- end }}
{{- range $key := list "tokenizer" "latencyPredictor" }}
{{- if dig $key "enabled" false $.Values.router }}
{{- fail (printf "router.%s.enabled: this chart has no such container. Add it by hand, or leave the value out" $key) }}
{{- end }}
{{- end }}
{{- if dig "gke" "preferredBackends" "enabled" false .Values.provider }}
{{- fail "provider.gke.preferredBackends.enabled: this chart does not offer it; use router.epp.replicas" }}
{{- end }}
{{- end }}

{{- define "epp.checks.pool" -}}
{{- $pool := .Values.router.inferencePool -}}
{{- if and (not .Values.router.modelServers.matchLabels) (or $pool.create (not $pool.name)) }}
{{- fail "router.modelServers.matchLabels is required: the labels of the model servers' pods. Or name a pool that exists: router.inferencePool.create=false and router.inferencePool.name" }}
{{- end }}
{{- if and $pool.create $pool.name }}
{{- fail "router.inferencePool.name names a pool that exists; it needs router.inferencePool.create=false. A pool made by the chart has the name of the release" }}
{{- end }}
{{- if not (include "epp.poolName" .) }}
{{- if or .Values.router.inferenceObjectives .Values.router.inferenceModelRewrites }}
{{- fail "router.inferenceObjectives and router.inferenceModelRewrites name a pool: set router.inferencePool.create=true or router.inferencePool.name" }}
{{- end }}
{{- if .Values.httpRoute.create }}
{{- fail "httpRoute.create routes to a pool: set router.inferencePool.create=true or router.inferencePool.name" }}
{{- end }}
{{- end }}
{{- $scaling := .Values.router.modelServers.autoscaling -}}
{{- if $scaling.enabled }}
{{- $_ := required "router.modelServers.autoscaling.scaleTargetRef.name is required: what KEDA scales" $scaling.scaleTargetRef.name }}
{{- $_ := required "router.modelServers.autoscaling.serverAddress is required: the URL of Prometheus" $scaling.serverAddress }}
{{- if gt (int $scaling.minReplicaCount) (int $scaling.maxReplicaCount) }}
{{- fail "router.modelServers.autoscaling: minReplicaCount is above maxReplicaCount" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "epp.checks.flags" -}}
{{- $set := dict
  "pool-name" "router.inferencePool.name" "pool-namespace" "the release's namespace" "pool-group" "nothing: it is fixed"
  "endpoint-selector" "router.modelServers.matchLabels" "endpoint-target-ports" "router.modelServers.targetPorts"
  "config-file" "router.epp.pluginsConfigFile" "config-text" "router.epp.pluginsConfig"
  "plugins-path" "router.epp.pluginFiles" "grpc-port" "router.epp.extProcPort"
  "grpc-health-port" "router.epp.grpcHealthPort" "metrics-port" "router.metricsPort" -}}
{{- range $flag, $value := .Values.router.epp.flags }}
{{- if hasKey $set $flag }}{{ fail (printf "router.epp.flags.%s is set by the chart; use %s" $flag (get $set $flag)) }}{{ end }}
{{- end }}
{{- $drain := toString (get .Values.router.epp.flags "drain-timeout" | default "30s") -}}
{{- if regexMatch "^[0-9]+s$" $drain }}
{{- $needed := add (trimSuffix "s" $drain | int) (include "epp.preStop" . | int) 5 }}
{{- if ge $needed (int64 .Values.router.epp.terminationGracePeriodSeconds) }}
{{- fail (printf "router.epp.terminationGracePeriodSeconds is %v, but stopping may take %v s: the preStop sleep, the drain timeout of %s and 5 s" .Values.router.epp.terminationGracePeriodSeconds $needed $drain) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "epp.checks.configuration" -}}
{{- $epp := .Values.router.epp -}}
{{- if and $epp.pluginsConfig (hasKey $epp.pluginsCustomConfig $epp.pluginsConfigFile) }}
{{- fail (printf "router.epp.pluginsConfig and router.epp.pluginsCustomConfig both are the file %s; leave one of them out" $epp.pluginsConfigFile) }}
{{- end }}
{{- $files := include "epp.configFiles" . | fromYaml -}}
{{- if not (hasKey $files $epp.pluginsConfigFile) }}
{{- fail (printf "router.epp.pluginsConfigFile: no file %s; there are %s" $epp.pluginsConfigFile (keys $files | sortAlpha | join ", ")) }}
{{- end }}
{{- end }}

{{- define "epp.checks.replicas" -}}
{{- $epp := .Values.router.epp -}}
{{- if and $epp.autoscaling.enabled (include "epp.leads" .) }}
{{- fail "router.epp.autoscaling.enabled excludes leader election: more pickers would only stand by. Leave ha-enable-leader-election out of router.epp.flags" }}
{{- end }}
{{- if $epp.autoscaling.enabled }}
{{- if gt (int $epp.autoscaling.minReplicas) (int $epp.autoscaling.maxReplicas) }}
{{- fail "router.epp.autoscaling: minReplicas is above maxReplicas" }}
{{- end }}
{{- if not (or $epp.autoscaling.metrics (dig "requests" "cpu" "" $epp.resources)) }}
{{- fail "router.epp.autoscaling counts CPU in percent of the request: set router.epp.resources.requests.cpu, or give router.epp.autoscaling.metrics" }}
{{- end }}
{{- end }}
{{- $away := dig "rollingUpdate" "maxUnavailable" "25%" $epp.deploymentStrategy | toString -}}
{{- if and (include "epp.leads" .) (eq (toString $epp.deploymentStrategy.type) "RollingUpdate") (ne $away "100%") }}
{{- fail "router.epp.deploymentStrategy: with leader election a RollingUpdate waits for ever for a second ready picker unless rollingUpdate.maxUnavailable is \"100%\". Leave the strategy out for Recreate" }}
{{- end }}
{{- end }}

{{- define "epp.checks.proxy" -}}
{{- if .Values.router.proxy.enabled }}
{{- if ne .Values.router.proxy.proxyType "envoy" }}
{{- fail (printf "router.proxy.proxyType: this chart runs envoy only, not %s" .Values.router.proxy.proxyType) }}
{{- end }}
{{- $selected := .Values.router.modelServers.matchLabels -}}
{{- if and .Values.router.proxy.failOpen (not $selected) }}
{{- fail "router.proxy.failOpen finds model servers by router.modelServers.matchLabels; set them" }}
{{- end }}
{{- end }}
{{- if and (eq .Values.router.proxy.mode "service") .Values.router.proxy.enabled .Values.router.epp.service.headless }}
{{- fail "router.epp.service.headless is of no use with router.proxy.mode=service, which has a headless Service already" }}
{{- end }}
{{- end }}
