"""Everything under deploy/ as sets of documents that are applied together.

A source is a folder of plain YAML, a kustomization rendered by kubectl, or the chart rendered by Helm with one of the
files in values/.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import helm_python

from .documents import Document, Json, documents

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "epp"
VALUES = Path(__file__).parent / "values"
KUBECTL = Path(sys.executable).parent / "kubectl"
RELEASE, NAMESPACE = "qwen", "llm"
KUSTOMIZATIONS = ("Kustomization", "Component")


@dataclass(frozen=True)
class Source:
    """`name` is a path from the top of the repository: a folder, a kustomization's file or a values file."""

    name: str

    @property
    def path(self) -> Path:
        return ROOT / self.name

    @property
    def documents(self) -> list[Document]:
        return _documents(self.name)

    @property
    def objects(self) -> list[Document]:
        return [document for document in self.documents if document.is_object]


def sources() -> list[Source]:
    """Every one there is."""
    paths = [*_kustomizations("Kustomization"), *_folders(), *sorted(VALUES.glob("*.yaml"))]
    return [Source(str(path.relative_to(ROOT))) for path in paths]


@cache
def _documents(name: str) -> list[Document]:
    path = ROOT / name
    if path.parent == VALUES:
        return chart(path)
    return [document for file in _loose(path) for document in _file(file)] if path.is_dir() else kustomized(path.parent)


def chart(values: Path) -> list[Document]:
    """The chart rendered with a values file."""
    return rendered(documents(values.read_text(), values.name)[0].value)


def rendered(values: Json, *, name: str = RELEASE, namespace: str = NAMESPACE) -> list[Document]:
    """The chart rendered with `values`. Raises helm_python.HelmError."""
    with helm_python.Chart.load(CHART) as loaded:
        loaded.validate_schema(values)
        texts = loaded.render(values, name=name, namespace=namespace)
    manifests = [(path, text) for path, text in sorted(texts.items()) if path.endswith(".yaml")]
    return [document for path, text in manifests for document in documents(text, path)]


def kustomized(folder: Path) -> list[Document]:
    """A kustomization rendered by the newest kubectl."""
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"kubectl kustomize {folder.relative_to(ROOT)}: {done.stderr}")
    return documents(done.stdout, f"kustomize {folder.relative_to(ROOT)}")


def _file(path: Path) -> list[Document]:
    return documents(path.read_text(), str(path.relative_to(ROOT)))


def _yaml_files() -> list[Path]:
    return sorted(path for path in DEPLOY.rglob("*.yaml") if CHART not in path.parents)


def _folders() -> list[Path]:
    """Folders that hold YAML which no kustomization takes up."""
    return sorted(
        {path.parent for path in _yaml_files() if path not in _taken_up() and path.name != "kustomization.yaml"}
    )


def _loose(folder: Path) -> list[Path]:
    return [path for path in _loose_files() if path.parent == folder]


def _loose_files() -> list[Path]:
    return [path for path in _yaml_files() if path not in _taken_up() and path.name != "kustomization.yaml"]


def _kustomizations(kind: str) -> list[Path]:
    files = sorted(DEPLOY.rglob("kustomization.yaml"))
    return [path for path in files if _file(path)[0].value.get("kind", "Kustomization") == kind]


@cache
def _taken_up() -> frozenset[Path]:
    """Files that are parts of kustomizations: resources, patches, and what generators read."""
    return frozenset(
        (kustomization.parent / name).resolve()
        for kind in KUSTOMIZATIONS
        for kustomization in _kustomizations(kind)
        for name in _named(_file(kustomization)[0].value)
    )


def _named(kustomization: Json) -> Iterator[str]:
    yield from kustomization.get("resources", [])
    yield from kustomization.get("components", [])
    yield from (patch["path"] for patch in kustomization.get("patches", []) if "path" in patch)
    for generator in (*kustomization.get("configMapGenerator", []), *kustomization.get("secretGenerator", [])):
        yield from (file.rpartition("=")[2] for file in generator.get("files", []))


def unused_components() -> list[str]:
    """Components that no kustomization renders, so that nothing checks them."""
    return [
        str(component.parent.relative_to(ROOT))
        for component in _kustomizations("Component")
        if component.parent.resolve() not in _taken_up()
    ]
