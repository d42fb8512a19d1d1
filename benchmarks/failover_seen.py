"""What clients of a fail-over saw, as figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.e2e.load import Sent


@dataclass
class Seen:
    """What clients saw in one round."""

    at: float
    sent: Sequence[Sent]
    asked: dict[str, float] = field(default_factory=dict)
    """Requests each picker had before the event: whether followers are asked in good times."""

    def figures(self, changes: Sequence[tuple[float, tuple[int, ...]]]) -> dict[str, Any]:
        early = [one for one in self.sent if one.at < self.at and one.at + one.took_s >= self.at]
        late = [one for one in self.sent if one.at >= self.at]
        lost = [one for one in late if one.status != 200]
        return {
            "requests_after": len(late),
            "statuses_after": {str(status): n for status, n in sorted(Counter(one.status for one in late).items())},
            "lost_after": len(lost),
            "in_flight": len(early),
            "in_flight_lost": sum(one.status != 200 for one in early),
            "gap_s": round(max((one.at for one in lost), default=self.at) - self.at, 2),
            "answered_without_picker": sum(one.status == 200 and not one.picked for one in late),
            "short_ms_before": self._times([one for one in self.sent if one.at + one.took_s < self.at]),
            "short_ms_after": self._times(late),
            "asked_before": self.asked,
            "ready": [[round(moment - self.at, 2), len(ready)] for moment, ready in changes if moment >= self.at],
        }

    @staticmethod
    def _times(sent: Sequence[Sent]) -> dict[str, float]:
        """Of good short answers."""
        took = [one.took_s * 1e3 for one in sent if one.status == 200 and not one.streamed]
        return {f"p{q}": round(float(np.percentile(took, q)), 1) for q in (50, 99)} if took else {}


def told(one: dict[str, Any]) -> str:
    """The line of a round."""
    flown = f"{one['in_flight_lost']} of {one['in_flight']}"
    return (
        f"lost {one['lost_after']} of {one['requests_after']} sent after it and {flown} in flight, "
        f"gap {one['gap_s']} s, {one['statuses_after']}, without picker {one['answered_without_picker']}, "
        f"asked before {one['asked_before']}, ms before {one['short_ms_before']} "
        f"after {one['short_ms_after']}, ready {one['ready']}"
    )
