"""All benchmarks, one after another: `make bench`."""

from __future__ import annotations

from benchmarks import decision, prefix, server

for part in (prefix, decision, server):
    print(f"== {part.__name__}")
    part.main()
