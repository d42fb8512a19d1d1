"""The chart rendered with a few values, and its parts by kind and name."""

from __future__ import annotations

from collections.abc import Mapping

from .documents import Document, Json
from .sources import rendered

REQUIRED: Json = {"router": {"modelServers": {"matchLabels": {"app": "vllm"}}}}


def merged(one: Json, other: Json) -> Json:
    """`other` over `one`, as Helm merges values: maps key by key, all else as a whole."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return other
    return {key: merged(one.get(key), other[key]) if key in other else one[key] for key in {**one, **other}}


class Release:
    """What Helm would install with the required values and these."""

    def __init__(self, values: Json | None = None, **router: Json) -> None:
        given = merged(values or {}, {"router": router} if router else {})
        self.objects: list[Document] = rendered(merged(REQUIRED, given))

    def names(self, kind: str) -> list[str]:
        return [one.name for one in self.objects if one.kind == kind]

    def one(self, kind: str, name: str = "qwen-epp") -> Json:
        [found] = [one.value for one in self.objects if (one.kind, one.name) == (kind, name)]
        return found

    @property
    def pod(self) -> Json:
        return self.one("Deployment")["spec"]["template"]["spec"]

    @property
    def picker(self) -> Json:
        [found] = [one for one in self.pod["containers"] if one["name"] == "epp"]
        return found

    @property
    def args(self) -> list[str]:
        found: list[str] = self.picker["args"]
        return found
