"""Writes what machines read from what people edit: `python deploy/monitoring/build.py`.

panels/NAME.yaml → dashboards/NAME.json, which Grafana imports; alerts.yaml → prometheusrule.yaml, the same rules for
the Prometheus Operator. A test builds both and compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
SCHEMA_VERSION = 42
SOURCE = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
SHORT = {
    "MODEL": 'namespace=~"$namespace", model_name=~"$model_name"',
    "POOL": 'namespace=~"$namespace", name=~"$pool"',
    "HERE": 'namespace=~"$namespace"',
    "IN_PICKERS": 'and on (job, instance) llm_d_epp_ready_endpoints{name=~"$pool"}',
}
"""Words that stand in queries for what nearly all of them contain. Most metrics do not name the pool: IN_PICKERS keeps
the series of those pickers that serve the chosen one."""
VARIABLES = {
    "namespace": "label_values(llm_d_epp_ready_endpoints, namespace)",
    "pool": 'label_values(llm_d_epp_ready_endpoints{namespace=~"$namespace"}, name)',
    "model_name": 'label_values(llm_d_epp_request_total{namespace=~"$namespace"}, model_name)',
}
COLUMNS = 24
SIZES = {"stat": (4, 4), "timeseries": (8, 8)}
"""(width, height) of a panel in Grafana's grid."""

Json = dict[str, Any]  # what Grafana and the Operator read


def dashboard(text: str) -> str:
    """The JSON of a dashboard from its panels' YAML."""
    told = yaml.safe_load(text)
    whole = {
        "uid": told["uid"],
        "title": told["title"],
        "description": told["about"],
        "tags": ["llm-d", "endpoint-picker"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "annotations": {"list": []},
        "templating": {"list": [_datasource(), *(_variable(name, query) for name, query in VARIABLES.items())]},
        "panels": _panels(told["rows"]),
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _datasource() -> Json:
    return {"name": "DS_PROMETHEUS", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}


def _variable(name: str, query: str) -> Json:
    """All of it is `.*`, so that series without the label, scraped without Kubernetes, are shown too."""
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panels(rows: dict[str, list[Json]]) -> list[Json]:
    """Each row's panels from left to right, below the row before."""
    panels: list[Json] = []
    y = 0
    for title, told in rows.items():
        panels.append(_placed({"type": "row", "title": title, "collapsed": False, "panels": []}, (0, y), (COLUMNS, 1)))
        x, y, height = 0, y + 1, 0
        for one in told:
            size = SIZES[one.get("type", "timeseries")]
            if x + size[0] > COLUMNS:
                x, y, height = 0, y + height, 0
            panels.append(_placed(_panel(one), (x, y), size))
            x, height = x + size[0], max(height, size[1])
        y += height
    return [{"id": number, **panel} for number, panel in enumerate(panels, 1)]


def _placed(panel: Json, at: tuple[int, int], size: tuple[int, int]) -> Json:
    return {**panel, "gridPos": {"x": at[0], "y": at[1], "w": size[0], "h": size[1]}}


def _panel(told: Json) -> Json:
    kind = told.get("type", "timeseries")
    custom = {"fillOpacity": 10, "showPoints": "never"} if kind == "timeseries" else {}
    options = {
        "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none", "graphMode": "area"},
        "timeseries": {"tooltip": {"mode": "multi", "sort": "desc"}, "legend": {"displayMode": "list"}},
    }
    return {
        "type": kind,
        "title": told["title"],
        "description": told["about"],
        "datasource": SOURCE,
        "fieldConfig": {
            "defaults": {"unit": told["unit"], "min": 0, **({"custom": custom} if custom else {})},
            "overrides": [],
        },
        "options": options[kind],
        "targets": [_target(at, legend, query) for at, (legend, query) in enumerate(_shown(told))],
    }


def _shown(told: Json) -> list[tuple[str, str]]:
    """Legends and queries; with `quantiles` each as often, PERCENTILE and QUANTILE filled in."""
    if "quantiles" not in told:
        return list(told["show"].items())
    return [
        (legend.replace("PERCENTILE", f"P{quantile * 100:g}"), query.replace("QUANTILE", str(quantile)))
        for legend, query in told["show"].items()
        for quantile in told["quantiles"]
    ]


def _target(at: int, legend: str, query: str) -> Json:
    for word, meaning in SHORT.items():
        query = query.replace(word, meaning)
    return {
        "refId": chr(ord("A") + at),
        "datasource": SOURCE,
        "expr": " ".join(query.split()),
        "legendFormat": legend,
        "range": True,
    }


def prometheus_rule(text: str) -> str:
    """The manifest of the Prometheus Operator around a rules file."""
    head = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "endpoint-picker", "labels": {"app.kubernetes.io/part-of": "endpoint-picker"}},
    }
    whole = {**head, "spec": yaml.safe_load(text)}
    note = "# Written by deploy/monitoring/build.py from alerts.yaml; edit that.\n"
    return note + yaml.safe_dump(whole, sort_keys=False, width=120, allow_unicode=True)


def built(folder: Path) -> dict[Path, str]:
    """Every file that is written, with its text."""
    made = {
        folder / "dashboards" / f"{source.stem}.json": dashboard(source.read_text())
        for source in sorted((folder / "panels").glob("*.yaml"))
    }
    return {**made, folder / "prometheusrule.yaml": prometheus_rule((folder / "alerts.yaml").read_text())}


if __name__ == "__main__":
    for path, content in built(FOLDER).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
