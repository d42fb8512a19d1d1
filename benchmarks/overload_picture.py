"""The picture of an overload run: time to first token of critical requests, what became of the others, the queue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.overload import Sample, Seen

SERVED, REFUSED, CHAT, QUEUE = "#4c9f70", "#d1495b", "#1f5aa6", "#8d6a9f"
BIN_S = 1.0


def draw(path: Path, seen: Sequence[Seen], samples: Sequence[Sample], overload_s: tuple[float, float]) -> None:
    """Write an SVG of three panels over the seconds of the run."""
    mpl.use("svg")
    # Text stays text, and the file is the same for the same run.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "overload", "font.size": 9})
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(3, 1, sharex=True, figsize=(8, 6.4), constrained_layout=True)
    for panel in panels:
        panel.axvspan(*overload_s, color="#f3efe6", zorder=0)
        panel.spines[["top", "right"]].set_visible(False)
    _critical(panels[0], seen)
    _sheddable(panels[1], seen)
    _picker(panels[2], samples)
    panels[0].annotate("overload: 3 ×", (overload_s[0] + 0.5, 0.9), xycoords=("data", "axes fraction"), va="top")
    panels[2].set_xlabel("seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _critical(panel: Axes, seen: Sequence[Seen]) -> None:
    served = [one for one in seen if not one.sheddable and one.status == 200]
    panel.plot([one.at_s for one in served], [one.ttft_ms for one in served], ".", color=CHAT, markersize=3)
    refused = [one.at_s for one in seen if not one.sheddable and one.status != 200]
    panel.plot(refused, [0.0] * len(refused), "x", color=REFUSED)
    panel.set_ylim(bottom=0)
    panel.set_ylabel("critical:\nms to first token")


def _sheddable(panel: Axes, seen: Sequence[Seen]) -> None:
    batch = [one for one in seen if one.sheddable]
    last = max((one.at_s + one.took_s for one in seen), default=1.0)
    edges = np.arange(0.0, last + BIN_S, BIN_S)
    bottom = np.zeros(len(edges) - 1)
    for label, color, chosen in (
        ("served", SERVED, [one.at_s for one in batch if one.status == 200]),
        ("refused (429)", REFUSED, [one.at_s for one in batch if one.status == 429]),
        ("other", "black", [one.at_s for one in batch if one.status not in {200, 429}]),
    ):
        counts, _ = np.histogram(chosen, edges)
        if chosen:
            panel.bar(edges[:-1], counts / BIN_S, BIN_S, bottom, align="edge", color=color, label=label)
        bottom = bottom + counts / BIN_S
    panel.legend(loc="upper right", frameon=False)
    panel.set_ylabel("sheddable:\nsent per second")


def _picker(panel: Axes, samples: Sequence[Sample]) -> None:
    at = [sample.at_s for sample in samples]
    panel.plot(at, [sample.queued for sample in samples], color=QUEUE)
    panel.set_ylabel("queued", color=QUEUE)
    beside = panel.twinx()
    beside.plot(at, [sample.saturation for sample in samples], color="#e0a030")
    beside.set_ylim(0, 1.5)
    beside.set_ylabel("saturation", color="#e0a030")
    beside.spines[["top"]].set_visible(False)
