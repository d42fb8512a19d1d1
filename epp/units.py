"""Durations as Go writes them and quantities as Kubernetes does: flags, configuration and feeds read them alike."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

DURATION_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


def duration(text: str) -> float:
    """Seconds of a Go duration such as 50ms or 1m30s; 0 needs no unit."""
    text = text.removeprefix("+")
    if text == "0":
        return 0.0
    if not text or DURATION_PART.sub("", text):
        raise ValueError(text)
    return sum(float(number) * DURATION_UNITS_S[unit] for number, unit in DURATION_PART.findall(text))


QUANTITY = re.compile(r"\+?(\d+\.?\d*|\.\d+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d+)?[Bb]?")
QUANTITY_UNITS = {"": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3")} | {
    unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)
}
QUANTITY_UNITS |= {f"{unit.upper()}i": Decimal(1024) ** power for power, unit in enumerate("kMGTPE", 1)}
LARGEST = 2**63 - 1


def quantity(text: str) -> int:
    """Bytes of a Kubernetes quantity, rounded up; one trailing B is allowed (10MiB, 25MB)."""
    match = QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    number, unit = match[1], match[2] or ""
    try:
        amount = Decimal(number) * (QUANTITY_UNITS[unit] if unit in QUANTITY_UNITS else Decimal(f"1{unit}"))
    except ArithmeticError:
        raise ValueError(text) from None
    if amount > LARGEST:
        raise ValueError(text)
    return int(amount.to_integral_value(ROUND_CEILING))
