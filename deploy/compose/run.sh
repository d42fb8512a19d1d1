#!/usr/bin/env bash
# The same without containers: two engines, the picker and Envoy as processes of this machine, until Ctrl-C.
#   deploy/compose/run.sh [FOLDER] [flags of the picker…]
# FOLDER holds epp.yaml and envoy.yaml; without it deploy/standalone. After `make test` or `make demo` all is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=deploy/standalone
if [ -d "${1:-}" ]; then folder=$1; shift; fi

started=()
# One after the other, Envoy first: what is under way comes to its end, nothing new comes in.
stop() {
  for ((last = ${#started[@]} - 1; last >= 0; last--)); do
    kill "${started[last]}" 2>/dev/null || continue
    wait "${started[last]}" || true
  done
}
trap stop EXIT
trap 'exit 0' INT TERM

.venv/bin/python -m sim.server --model tiny --port "${ENGINES_PORT:-8100}" --data-parallel-size 2 &
started+=($!)
.venv/bin/epp --config-file "$folder/epp.yaml" --metrics-endpoint-auth=false "$@" &
started+=($!)
.venv/bin/envoy --config-path "$folder/envoy.yaml" --disable-hot-restart --log-level warn &
started+=($!)

# Whichever ends takes the others with it.
wait -n
