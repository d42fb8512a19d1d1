"""Every query that a manifest, a dashboard or an alert under deploy/ contains."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
DASHBOARDS = sorted((FOLDER / "dashboards").glob("*.json"))

Json = dict[str, Any]  # a dashboard as Grafana reads it


@dataclass(frozen=True)
class Query:
    """One target of a panel."""

    where: str
    text: str
    legend: str = ""


def dashboard(path: Path) -> Json:
    read: Json = json.loads(path.read_text())
    return read


def panels(path: Path) -> list[Json]:
    """Those that show something."""
    return [panel for panel in dashboard(path)["panels"] if panel["type"] != "row"]


def of_dashboard(path: Path) -> list[Query]:
    return [
        Query(f"{path.stem}: {panel['title']}", target["expr"], target["legendFormat"])
        for panel in panels(path)
        for target in panel["targets"]
    ]


def variables(path: Path) -> list[str]:
    """The queries of the variables."""
    return [one["definition"] for one in dashboard(path)["templating"]["list"] if one["type"] == "query"]


def alerts() -> list[Json]:
    """Every alert rule."""
    rules = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
    return [rule for group in rules["groups"] for rule in group["rules"]]


def in_object(value: Any) -> Iterator[str]:
    """Queries inside a Kubernetes object: of KEDA's triggers, of rules."""
    if isinstance(value, list):
        for inner in value:
            yield from in_object(inner)
    elif isinstance(value, dict):
        yield from (text for key, text in value.items() if key in {"query", "expr"} and isinstance(text, str))
        for inner in value.values():
            yield from in_object(inner)
