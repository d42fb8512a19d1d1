"""What every result says about where and how it was measured, and how CPU time is read."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from epp.compiled import compiled

RESULTS = Path(__file__).parent / "results"
TICKS = os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, object]:
    """The machine and the versions that matter."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": model[0].partition(":")[2].strip() if model else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "kernel": platform.release(),
        "compiled": compiled(),
    }


def write(name: str, figures: dict[str, object]) -> Path:
    """Write results/<name>.json and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    made = time.strftime("%Y-%m-%d", time.gmtime())
    path.write_text(json.dumps({"made": made, "machine": machine(), **figures}, indent=1) + "\n")
    return path


def cpu_s(pid: int) -> float:
    """User and system CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def kernel_s(pid: int) -> float:
    """System CPU seconds of a process so far, as far as the kernel's ticks tell."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[12]) / TICKS


def median_us(call: Callable[[], object], *, n: int, runs: int = 5) -> float:
    """Median over `runs` of the mean time of `n` calls, in µs."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        for _ in range(n):
            call()
        times.append((time.perf_counter() - began) / n * 1e6)
    return float(np.median(times))
