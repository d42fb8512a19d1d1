"""Which series there are to ask for: ours by the table, those of the process, vLLM's as recorded from it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from epp.obs.metrics_table import STREAMS, TABLE
from epp.obs.series import PREFIX, Spec

RECORDED = sorted((Path(__file__).parents[1] / "fixtures" / "metrics").glob("vllm-0.32.0-*.txt"))
TARGET = frozenset({"job", "instance", "namespace", "pod", "service", "container", "endpoint"})
"""Labels that Prometheus and its Operator give a target."""


@cache
def exported() -> dict[str, frozenset[str]]:
    """Name of each series → its labels as they are stored."""
    known = {name: frozenset(labels) for name, labels in (*_ours(), *_of_the_process(), *_of_vllm())}
    return {name: stored(labels) for name, labels in known.items()}


def stored(labels: frozenset[str]) -> frozenset[str]:
    """With the target's labels; a label of the series that has the same name is kept as exported_…"""
    return labels | TARGET | {f"exported_{label}" for label in labels & TARGET}


def _ours() -> Iterator[tuple[str, tuple[str, ...]]]:
    for spec in (*TABLE, *STREAMS):
        if not spec.retired:
            yield from _samples(PREFIX + spec.name, spec, spec.labels)
        if spec.twin is not None:
            yield from _samples(spec.twin.name, spec, tuple(label.partition("=")[0] for label in spec.twin.labels))


def _samples(name: str, spec: Spec, labels: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    if spec.kind != "histogram":
        yield name, labels
        return
    yield f"{name}_bucket", (*labels, "le")
    yield f"{name}_sum", labels
    yield f"{name}_count", labels


def _of_the_process() -> Iterator[tuple[str, tuple[str, ...]]]:
    for family in ProcessCollector(registry=CollectorRegistry()).collect():
        yield from ((sample.name, tuple(sample.labels)) for sample in family.samples)


def _of_vllm() -> Iterator[tuple[str, tuple[str, ...]]]:
    for page in RECORDED:
        for family in text_string_to_metric_families(page.read_text()):
            yield from ((sample.name, tuple(sample.labels)) for sample in family.samples)
