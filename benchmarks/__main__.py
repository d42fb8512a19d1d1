"""All benchmarks, one after another: `make bench`."""

from __future__ import annotations

from benchmarks import churn, decision, exchange, failover, prefix, queue, routing, server, simulated, transport

for part in (prefix, decision, queue, exchange, server, transport, simulated, routing, churn, failover):
    print(f"== {part.__name__}")
    part.main()
