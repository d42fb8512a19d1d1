"""docs/flow-control.md tells what was measured."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.machine import RESULTS
from benchmarks.saturation import lines

TEXT = (Path(__file__).parents[2] / "docs" / "flow-control.md").read_text()


def test_the_table_of_detectors_says_what_the_results_say() -> None:
    found = json.loads((RESULTS / "saturation.json").read_text())
    assert "\n".join(lines(found["scenes"])) in TEXT
