"""Kubelet's gRPC probe: `python -m tests.e2e.probe PORT SERVICE` ends well once the service is SERVING."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

PATIENCE_S = 30.0


def state(port: int, service: str) -> str:
    """SERVING, NOT_SERVING, or the gRPC status that came instead."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            answer = HealthStub(channel).Check(HealthCheckRequest(service=service), timeout=1)
        except grpc.RpcError as error:
            return str(error.code().name)
    return str(HealthCheckResponse.ServingStatus.Name(answer.status))


def main(words: Sequence[str]) -> int:
    port, service = int(words[0]), words[1]
    give_up = time.monotonic() + PATIENCE_S
    while (seen := state(port, service)) != "SERVING" and time.monotonic() < give_up:
        time.sleep(0.1)
    print(seen)  # noqa: T201 - what whoever started it reads
    return 0 if seen == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
