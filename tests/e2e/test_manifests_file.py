"""Objectives and rewrites from a file beside the endpoints, through a real Envoy."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from .chat import ask, ask_all, completion
from .conftest import Proxied, Town
from .processes import CONFIG, Picker, endpoints_file, picker, settles

VERSION = "llm-d.ai/v1alpha2"
REQUESTS = 400
WIDE = 5.0
"""Standard deviations: one run in 1.7 million is farther off."""


def written(path: Path, *objects: tuple[str, str, dict[str, Any]]) -> None:
    """Kind, name and spec of each; moved into place."""
    documents = [
        {"apiVersion": VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec} for kind, name, spec in objects
    ]
    part = path.with_suffix(".part")
    part.write_text(yaml.safe_dump_all(documents))
    part.replace(path)


def objective(name: str, priority: int) -> tuple[str, str, dict[str, Any]]:
    return "InferenceObjective", name, {"priority": priority, "poolRef": {"name": "p"}}


def split(**weights: int) -> tuple[str, str, dict[str, Any]]:
    targets = [{"modelRewrite": model, "weight": weight} for model, weight in weights.items()]
    rule = {"matches": [{"model": {"type": "Exact", "value": "alias"}}], "targets": targets}
    return "InferenceModelRewrite", "split", {"poolRef": {"name": "p"}, "rules": [rule]}


def configured(manifests: Path) -> str:
    return CONFIG.replace("path: ENDPOINTS", f"path: ENDPOINTS, manifestsPath: {manifests}")


def test_a_split_is_met_within_sampling_error_and_clients_hear_their_own_name(
    which: str, town: Town, proxied: Proxied, tmp_path: Path
) -> None:
    manifests = tmp_path / "manifests.yaml"
    # No engine serves `gone`: its 404 tells that the engine was asked for it.
    written(manifests, split(tiny=75, gone=25))
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [engine.address for engine in town.engines])
    with picker(tmp_path, endpoints, config=configured(manifests)) as chooser:
        proxy = proxied(chooser)
        replies = ask_all(proxy.port, [completion(f"story {n}", model="alias", max_tokens=1) for n in range(REQUESTS)])
        told = {
            chooser.metric("llm_d_epp_model_rewrite_decisions_total", target_model=name) for name in ("tiny", "gone")
        }
    seen = Counter(reply.status for reply in replies)
    assert set(seen) == {200, 404}
    assert {json.loads(reply.body)["model"] for reply in replies if reply.status == 200} == {"alias"}
    assert abs(seen[404] - REQUESTS * 0.25) < WIDE * (REQUESTS * 0.25 * 0.75) ** 0.5
    assert told == set(map(float, seen.values()))


def test_an_edited_file_is_in_force_soon_and_a_spoilt_object_stays_as_it_was(
    town: Town, proxied: Proxied, tmp_path: Path
) -> None:
    manifests = tmp_path / "manifests.yaml"
    written(manifests, objective("urgent", 7))
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [town.engines[0].address])
    with picker(tmp_path, endpoints, config=configured(manifests)) as chooser:
        proxy = proxied(chooser)

        def prioritised(priority: int) -> bool:
            before = counted(chooser, priority)
            assert ask(proxy.port, completion("x", "x-llm-d-inference-objective: urgent")).status == 200
            return counted(chooser, priority) > before

        assert prioritised(7)
        assert ask(proxy.port, completion(model="alias")).status == 404
        kind, name, spec = objective("urgent", 3)
        written(manifests, (kind, name, {**spec, "prio": 3}), split(tiny=1))
        assert settles(200, lambda: ask(proxy.port, completion(model="alias")).status) == 200
        assert "InferenceObjective/urgent): spec has no field 'prio'" in chooser.child.log.read_text()
        assert prioritised(7)
        written(manifests, objective("urgent", 3))
        assert settles(True, lambda: prioritised(3))
        assert ask(proxy.port, completion(model="alias")).status == 404


def counted(chooser: Picker, priority: int) -> float:
    return chooser.metric("llm_d_epp_request_total", priority=str(priority))
