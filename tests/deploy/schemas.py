"""What an object may look like: the published schemas of Kubernetes, and ours for the kinds of others.

Ours are schemas/<group>/<Kind>.json, one file a kind, written from the field lists of its project: JSON Schema 2020-12
with `additionalProperties: false`, so that a misspelt field is an error. They may point into Kubernetes' own
definitions and into schemas/shared.json:

    {"$ref": "/api/_definitions.json#/$defs/io.k8s.api.core.v1.PodSpec"}
    {"$ref": "/shared.json#/$defs/metadata"}
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import jsonschema
from referencing import Registry, Resource

from .documents import Document, Json, walk

OURS = Path(__file__).parent / "schemas"
PUBLISHED = files("kubernetes_validate") / "kubernetes-json-schema"
NEWEST = "1.37"
URL = "https://kubernetes.io"
"""The identity that Kubernetes' definitions give themselves; references without a host are relative to it."""
BUILT_IN = ("", "apps", "autoscaling", "batch", "policy")
"""Groups of Kubernetes that do not end in k8s.io."""


def problems(document: Document, kubernetes: str = NEWEST) -> list[str]:
    """What is wrong with an object for a version of Kubernetes, each with the path of the value."""
    schema = _schema(document, kubernetes)
    if schema is None:
        return [f"{document}: no schema; write tests/deploy/schemas/{document.group}/{document.kind}.json"]
    errors = jsonschema.Draft202012Validator(schema, registry=_registry(kubernetes)).iter_errors(document.value)
    wrong = [_told(error) for error in errors]
    return [f"{document}: {problem}" for problem in (*wrong, *_nulls(document.value))]


def _told(error: jsonschema.ValidationError) -> str:
    """The deepest reason: of several alternatives the one that fits best."""
    best = jsonschema.exceptions.best_match([error])
    return f"{best.json_path.removeprefix('$.')}: {best.message[:300]}"


def _nulls(value: Json) -> list[str]:
    """Kubernetes drops a null silently; in a manifest it is a key whose value was forgotten."""
    return [f"{path}: has no value" for path, inner in walk(value) if inner is None]


def _schema(document: Document, kubernetes: str) -> Json:
    ours = OURS / document.group
    for path in ours.glob("*.json") if document.group else ():
        if path.stem.lower() == document.kind.lower():
            return {"$id": f"{URL}/{document.group}/{path.name}", **json.loads(path.read_text())}
    return _published(str(document.value["apiVersion"]), document.kind, kubernetes)


def _published(api_version: str, kind: str, kubernetes: str) -> Json:
    group, _, version = api_version.rpartition("/")
    if group not in BUILT_IN and not group.endswith(".k8s.io"):
        return None
    short = "-".join(filter(None, (group.partition(".")[0], version)))
    path = _folder(kubernetes) / f"{kind.lower()}-{short}.json"
    return {"$id": f"{URL}/{path.name}", **json.loads(path.read_text())} if path.is_file() else None


def _folder(kubernetes: str) -> Traversable:
    return PUBLISHED / f"v{kubernetes}.0-local-strict"


@cache
def _registry(kubernetes: str) -> Registry[Json]:
    definitions = json.loads((_folder(kubernetes) / "_definitions.json").read_text())
    shared = json.loads((OURS / "shared.json").read_text())
    return Registry().with_resources(
        [
            (f"{URL}/api/_definitions.json", Resource.from_contents(definitions)),
            (f"{URL}/shared.json", Resource.from_contents({"$id": f"{URL}/shared.json", **shared})),
        ]
    )
