#!/bin/sh
# Is a service ready for production? One line a question; the exit code is 1 if any answer is wrong.
#   ./checklist.sh NAMESPACE NAME      for example: ./checklist.sh llm qwen
set -u

if [ $# -ne 2 ]; then
  echo "usage: $0 NAMESPACE NAME" >&2
  exit 2
fi
namespace=$1
name=$2
scheduler=$name-kserve-router-scheduler
pool=$name-inference-pool
account=system:serviceaccount:$namespace:$name-epp-sa
failures=0

k() { kubectl --namespace "$namespace" "$@" 2>/dev/null; }

# told WHAT ANSWER REMEDY: the answer must be there.
told() {
  if [ -n "$2" ]; then
    echo "ok   $1: $2"
  else
    echo "FAIL $1: $3"
    failures=$((failures + 1))
  fi
}

# equal WHAT ANSWER WANTED REMEDY
equal() {
  if [ "$2" = "$3" ]; then
    echo "ok   $1: $2"
  else
    echo "FAIL $1: ${2:-nothing} instead of $3; $4"
    failures=$((failures + 1))
  fi
}

# at_least WHAT ANSWER LEAST REMEDY
at_least() {
  if [ "${2:-0}" -ge "$3" ] 2>/dev/null; then
    echo "ok   $1: $2"
  else
    echo "FAIL $1: ${2:-nothing}, fewer than $3; $4"
    failures=$((failures + 1))
  fi
}

equal "the service is ready" \
  "$(k get llminferenceservice "$name" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" True \
  "kubectl describe llminferenceservice $name tells which condition is not"
told "it has a URL" \
  "$(k get llminferenceservice "$name" -o 'jsonpath={.status.url}')" \
  "look at the gateway's and the route's conditions"
told "the picker's image" \
  "$(k get deployment "$scheduler" -o 'jsonpath={.spec.template.spec.containers[?(@.name=="main")].image}')" \
  "no Deployment $scheduler: is router.scheduler set?"
at_least "replicas of the picker" \
  "$(k get deployment "$scheduler" -o 'jsonpath={.spec.replicas}')" 2 \
  "set router.scheduler.replicas: 2, so that one can take over"
at_least "ready pickers (one leads; the others are not ready, on purpose)" \
  "$(k get deployment "$scheduler" -o 'jsonpath={.status.availableReplicas}')" 1 \
  "kubectl logs deployment/$scheduler"
told "who leads" \
  "$(k get lease "epp-$namespace-$pool.llm-d.ai" -o 'jsonpath={.spec.holderIdentity}')" \
  "nobody holds the lease: may $name-epp-sa write leases?"
told "what the gateway does without a picker" \
  "$(k get inferencepool "$pool" -o 'jsonpath={.spec.endpointPickerRef.failureMode}')" \
  "no InferencePool $pool"
at_least "ready endpoints" \
  "$(k get pods -l "app.kubernetes.io/name=$name,kserve.io/component=workload" \
    -o 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}' | tr ' ' '\n' | grep -c True)" 2 \
  "one endpoint leaves nothing to pick and nothing to lose"
told "the picker's certificate" "$(k get secret picker-tls -o name)" "component tls; is cert-manager there?"
told "a network policy" "$(k get networkpolicy "$name-picker" -o name)" "component network-policy"
told "a disruption budget for the endpoints" \
  "$(k get poddisruptionbudget "$name-endpoints" -o name)" "component pdb"
told "Prometheus reads the picker" "$(k get servicemonitor "$name-picker" -o name)" "component monitoring"
equal "the picker may list pods" "$(k auth can-i list pods "--as=$account")" yes "KServe makes the Role $name-epp-role"
equal "the picker may hold a lease" \
  "$(k auth can-i update leases.coordination.k8s.io "--as=$account")" yes "the Role $name-epp-role lacks leases"
equal "the picker may ask who reads /metrics" \
  "$(k auth can-i create tokenreviews.authentication.k8s.io "--as=$account")" yes \
  "bind system:auth-delegator to $name-epp-sa"
equal "the picker may not read secrets" \
  "$(k auth can-i get secrets "--as=$account")" no "somebody gave it more than it needs"

echo "$failures failed"
[ "$failures" -eq 0 ]
