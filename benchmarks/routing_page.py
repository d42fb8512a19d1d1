"""Tables and pictures of docs/routing-quality.md from results/routing.json: `python -m benchmarks.routing_page`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "routing-quality.md"
PICTURE = DOCS / "images" / "routing-quality.svg"
BEGIN, END = "<!-- generated: python -m benchmarks.routing_page -->", "<!-- end of what is generated -->"
COLORS = {"upstream default": "#d1495b", "least load": "#8d99ae", "random": "#c9b458", "recommended": "#1f5aa6"}
BOUND = 1.1
"""Recommended ÷ least load: what may be given up in p99."""


def results(name: str = "routing") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def generated(found: Mapping[str, Any], dynamo: Mapping[str, Any]) -> str:
    """What stands between BEGIN and END."""
    workloads = found["workloads"]
    return "\n".join(
        [
            *_compared(workloads),
            "",
            *_bound(workloads),
            "",
            "The price of a miss, p99 / p50 in milliseconds:",
            "",
            *_prices(found["miss_price"]),
            "",
            "Dynamo's KV router and its round robin in Dynamo's own simulator, p99 / p50 in milliseconds on the same",
            "requests, and what each router makes of p99 in its own simulator:",
            "",
            *_dynamo(dynamo["workloads"], workloads),
        ]
    )


def _dynamo(replayed: Mapping[str, Any], workloads: Mapping[str, Any]) -> Iterator[str]:
    yield "| workload | requests/s | round robin | KV router | KV router ÷ round robin | recommended ÷ least load |"
    yield "|---|---|---|---|---|---|"
    for name, loads in replayed.items():
        for per_s, modes in loads.items():
            theirs = [modes[mode] for mode in ("round_robin", "kv_router")]
            ours = [workloads[name][per_s][who]["ttft_p99_ms"] for who in ("least load", "recommended")]
            shown = [f"{each['ttft_p99_ms']:,.0f} / {each['ttft_p50_ms']:,.0f}" for each in theirs]
            ratio = theirs[1]["ttft_p99_ms"] / theirs[0]["ttft_p99_ms"]
            yield f"| {name} | {per_s} | {' | '.join(shown)} | {ratio:.2f} | {ours[1] / ours[0]:.2f} |"


def _compared(workloads: Mapping[str, Any]) -> Iterator[str]:
    yield "| workload | requests/s | upstream default | least load | random | recommended | its hit share |"
    yield "|---|---|---|---|---|---|---|"
    for name, loads in workloads.items():
        for per_s, who in loads.items():
            best = min(each["ttft_p99_ms"] for each in who.values())
            cells = [_cell(each, best) for each in who.values()]
            yield f"| {name} | {per_s} | {' | '.join(cells)} | {who['recommended']['hit_share']:.0%} |"


def _cell(each: Mapping[str, float], best: float) -> str:
    p99 = f"{each['ttft_p99_ms']:,.0f}"
    shown = f"**{p99}**" if each["ttft_p99_ms"] == best else p99
    return f"{shown} / {each['ttft_p50_ms']:,.0f}"


def _prices(workloads: Mapping[str, Any]) -> Iterator[str]:
    prices = list(next(iter(next(iter(workloads.values())).values())))
    yield f"| workload | requests/s | {' | '.join(f'price {price}' for price in prices)} |"
    yield f"|---|---|{'---|' * len(prices)}"
    for name, loads in workloads.items():
        for per_s, each in loads.items():
            best = min(found["ttft_p99_ms"] for found in each.values())
            yield f"| {name} | {per_s} | {' | '.join(_cell(found, best) for found in each.values())} |"


def _bound(workloads: Mapping[str, Any]) -> Iterator[str]:
    """What is given up against least load, and where upstream's default is better."""
    pairs = [(name, per_s, who) for name, loads in workloads.items() for per_s, who in loads.items()]
    over = [
        (name, per_s, who["recommended"]["ttft_p99_ms"] / who["least load"]["ttft_p99_ms"])
        for name, per_s, who in pairs
    ]
    worst = max(over, key=lambda one: one[2])
    kept = all(ratio <= BOUND for _, _, ratio in over)
    yield (
        f"Against least load, recommended has at most {worst[2]:.2f} × its p99 ({worst[0]}, {worst[1]}/s): the bound "
        f"of {BOUND} × is {'kept on every line' if kept else 'not kept'}."
    )
    lost = [
        f"{name} at {per_s}/s ({who['recommended']['ttft_p99_ms'] / who['upstream default']['ttft_p99_ms']:.2f} ×)"
        for name, per_s, who in pairs
        if who["recommended"]["ttft_p99_ms"] > who["upstream default"]["ttft_p99_ms"]
    ]
    yield f"Upstream's default has the better p99 on {len(lost)} of {len(pairs)} lines: {', '.join(lost) or 'none'}."


def draw(path: Path, workloads: Mapping[str, Any]) -> None:
    """Write an SVG: a panel for each workload, p99 over requests a second."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "routing", "font.size": 8})
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(2, 4, figsize=(11, 5), constrained_layout=True)
    for panel, (name, loads) in zip(panels.flat, workloads.items(), strict=True):
        at = [float(per_s) for per_s in loads]
        for who, color in COLORS.items():
            times = [each[who]["ttft_p99_ms"] / 1e3 for each in loads.values()]
            panel.plot(
                at, times, "o-", color=color, markersize=3, linewidth=2 if who == "recommended" else 1, label=who
            )
        panel.set_yscale("log")
        panel.set_title(name, fontsize=8)
        panel.set_xlabel("requests/s")
        panel.spines[["top", "right"]].set_visible(False)
    for row in panels:
        row[0].set_ylabel("TTFT p99, s")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    found = results()
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{generated(found, results('routing_dynamo'))}\n\n{END}{after}")
    draw(PICTURE, found["workloads"])


if __name__ == "__main__":
    main()
