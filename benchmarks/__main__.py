"""All benchmarks, one after another: `make bench`."""

from __future__ import annotations

from benchmarks import (
    churn,
    decision,
    exchange,
    failover,
    latency,
    latency_accuracy,
    prefix,
    queue,
    routing,
    server,
    simulated,
    transport,
    workers,
)

PARTS = (
    prefix,
    decision,
    queue,
    latency,
    exchange,
    server,
    transport,
    workers,
    simulated,
    latency_accuracy,
    routing,
    churn,
    failover,
)
for part in PARTS:
    print(f"== {part.__name__}")
    part.main()
