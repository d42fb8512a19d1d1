"""Custom kinds: those that can be installed by name, and how a CustomResourceDefinition becomes a kind."""

from __future__ import annotations

from typing import Any

from tests.apiserver.kinds import AGE, Column, Kind

GATEWAY = "inference.networking.k8s.io"
GATEWAY_X = "inference.networking.x-k8s.io"
LLM_D = "llm-d.ai"


def _definition(group: str, version: str, kind: str, short: str, columns: tuple[tuple[str, str, str], ...]) -> Any:
    plural = f"{kind.lower()}s"
    printed = [{"name": name, "type": type_, "jsonPath": path} for name, type_, path in columns]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short] if short else [],
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": printed,
                    "schema": {
                        "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    },
                }
            ],
        },
    }


_AGE = ("Age", "date", ".metadata.creationTimestamp")
_POOL = ("Inference Pool", "string", ".spec.poolRef.name")
KNOWN: dict[str, Any] = {
    definition["metadata"]["name"]: definition
    for definition in (
        _definition(GATEWAY, "v1", "InferencePool", "infpool", (_AGE,)),
        _definition(GATEWAY_X, "v1alpha2", "InferencePool", "xinfpool", (_AGE,)),
        *(
            _definition(group, "v1alpha2", kind, short, (_POOL, *more, _AGE))
            for group in (LLM_D, GATEWAY_X)
            for kind, short, more in (
                ("InferenceObjective", "", (("Priority", "string", ".spec.priority"),)),
                ("InferenceModelRewrite", "infmodelrewrite", ()),
            )
        ),
    )
}
"""CRDs by their object names, without the schemas of the published ones: any spec is taken."""


def kind_of(definition: dict[str, Any]) -> Kind:
    """The kind that a definition makes served: its storage version, the only one that is."""
    spec = definition["spec"]
    version = next(each for each in spec["versions"] if each.get("storage"))
    names = spec["names"]
    columns = tuple(
        Column(each["name"], each["jsonPath"].lstrip("."), each["type"], each.get("priority", 0))
        for each in version.get("additionalPrinterColumns", ())
    )
    return Kind(
        spec["group"],
        version["name"],
        names["kind"],
        names["plural"],
        namespaced=spec["scope"] == "Namespaced",
        short=tuple(names.get("shortNames", ())),
        status="status" in version.get("subresources", {}),
        generation=True,
        custom=True,
        unconditional=False,
        columns=columns or (AGE,),
    )
