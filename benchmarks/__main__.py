"""All benchmarks, one after another: `make bench`."""

from __future__ import annotations

from benchmarks import decision, failover, prefix, server, simulated

for part in (prefix, decision, server, simulated, failover):
    print(f"== {part.__name__}")
    part.main()
