"""All benchmarks, one after another: `make bench`."""

from __future__ import annotations

from benchmarks import (
    churn,
    decision,
    envoy,
    exchange,
    failover,
    latency,
    latency_accuracy,
    overload,
    page,
    peers,
    prefix,
    queue,
    routing,
    saturation,
    scraping,
    scraping_turns,
    server,
    server_cases,
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
    server_cases,
    transport,
    envoy,
    scraping,
    scraping_turns,
    peers,
    workers,
    simulated,
    latency_accuracy,
    saturation,
    routing,
    overload,
    churn,
    failover,
    page,
)
for part in PARTS:
    print(f"== {part.__name__}")
    part.main()
