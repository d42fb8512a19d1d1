"""InferenceObjectives and InferenceModelRewrites as they stand in a file, from text to records. Pure.

Nobody has validated them as an API server would have, so more is refused than where they come from one: fields with a
wrong name above all. What `kubectl get -o yaml` adds to an object is no error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import msgspec
import yaml
from msgspec import inspect

from epp.feeds import FeedError
from epp.feeds.entries import MAX_FILE_BYTES, NOT_YAML, Problem
from epp.kube.records import InferenceModelRewrite, InferenceObjective

Kinds = InferenceObjective | InferenceModelRewrite
KINDS: Mapping[str, type[InferenceObjective] | type[InferenceModelRewrite]] = {
    "InferenceObjective": InferenceObjective,
    "InferenceModelRewrite": InferenceModelRewrite,
}
VERSIONS = ("llm-d.ai/v1alpha2", "inference.networking.x-k8s.io/v1alpha2")
"""The preferred one first: an object of the other gives way to one of the same kind and name."""
MOST_LISTS = 100
"""In one document, one in another."""
NONE = "write `{apiVersion: v1, kind: List, items: []}` for none"


class _Loader(yaml.CSafeLoader):
    """Dates stay text, as kubectl reads them."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own pattern
        first: [(tag, pattern) for tag, pattern in patterns if tag != "tag:yaml.org,2002:timestamp"]
        for first, patterns in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True, slots=True)
class Manifests:
    """A file as far as it can be used: `kind/name` → object, in the order of the file."""

    objects: Mapping[str, Kinds]
    errors: tuple[Problem, ...] = ()
    """Objects left out; a Problem's key is `kind/name`, if so much could be read."""
    warnings: tuple[Problem, ...] = ()


def read_manifests(text: str | bytes) -> Manifests:
    """The objects of a file; FeedError if it can't be read at all (so also, as a rule, while it is half written)."""
    objects: dict[str, Kinds] = {}
    former: set[str] = set()
    errors, warnings = [], []
    for where, raw in _manifests(text.encode() if isinstance(text, str) else text):
        key = _key(raw)
        label = f"{where} ({key})" if key else where
        kind = KINDS.get(raw.get("kind") if isinstance(raw.get("kind"), str) else "")  # type: ignore[arg-type]  # "" else
        if kind is None:
            warnings.append(Problem(label, f"kind {raw.get('kind')!r} is not read here; have: {', '.join(KINDS)}"))
            continue
        try:
            found = _object(raw, kind)
        except (ValueError, RecursionError) as error:
            errors.append(Problem(label, _plain(error), key))
            continue
        old = raw["apiVersion"] != VERSIONS[0]
        if key in objects:
            ignored = old and key not in former
            counts = f"that of {VERSIONS[0]}" if ignored else "the last one"
            warnings.append(Problem(label, f"it is there twice; {counts} counts, remove the other", key))
            if ignored:
                continue
        (former.add if old else former.discard)(key)
        objects.pop(key, None)
        objects[key] = found
        warnings += [Problem(label, text, key) for text in _doubts(found)]
    return Manifests(objects, tuple(errors), tuple(warnings))


def _manifests(raw: bytes) -> Iterator[tuple[str, dict[str, Any]]]:  # whatever stands in the file
    for number, document in enumerate(_documents(raw), 1):
        if document is not None:
            yield from _flat(f"document {number}", document, set())


def _flat(
    where: str, document: object, lists: set[int]
) -> Iterator[tuple[str, dict[str, Any]]]:  # whatever stands in the file
    """An object, or those in a list, which may hold lists.

    `lists` are those seen before: with aliases a few of them can be endless.
    """
    if not isinstance(document, dict):
        raise FeedError(f"{where} is no Kubernetes object; begin it with `apiVersion: {VERSIONS[0]}`")
    kind = document.get("kind")
    items = document.get("items")
    if isinstance(kind, str) and kind.endswith("List"):
        if not isinstance(items, list):
            raise FeedError(f"{where}: kind {kind} needs a list named items; {NONE}")
        if id(items) in lists or len(lists) >= MOST_LISTS:
            raise FeedError(f"{where}: too many lists in one document; write one list, without aliases")
        lists.add(id(items))
        for number, item in enumerate(items):
            yield from _flat(f"{where}, items[{number}]", item, lists)
    else:
        yield where, document


def _documents(raw: bytes) -> list[object]:
    if len(raw) > MAX_FILE_BYTES:
        raise FeedError(f"the file has more than {MAX_FILE_BYTES} bytes; remove what no client names")
    try:
        # JSON may be indented with tabs, which YAML forbids.
        return [msgspec.json.decode(raw)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # YAML says below what is wrong
    try:
        found = list(yaml.load_all(raw, Loader=_Loader))
    except NOT_YAML as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise FeedError(f"{where}not YAML: {getattr(error, 'problem', None) or error}") from None
    if all(document is None for document in found):
        raise FeedError(f"the file holds no object; {NONE}")
    return found


def _key(raw: dict[str, Any]) -> str:  # one object as written
    kind, meta = raw.get("kind"), raw.get("metadata")
    name = meta.get("name") if isinstance(meta, dict) else None
    return f"{kind}/{name}" if isinstance(name, str) and name and isinstance(kind, str) else ""


def _object(raw: dict[str, Any], kind: type[Kinds]) -> Kinds:  # one object as written
    """Raises ValueError, of which msgspec.ValidationError is one."""
    if raw.get("apiVersion") not in VERSIONS:
        raise ValueError(f"apiVersion {raw.get('apiVersion')!r} is not known; write {VERSIONS[0]}")
    found = msgspec.convert(raw, kind)
    if not found.metadata.name:
        raise ValueError("metadata.name is missing; requests, logs and metrics call it by that")
    wrong = next(_unknown(raw["spec"], inspect.type_info(type(found.spec)), "spec"), "")
    if wrong:
        raise ValueError(wrong)
    if isinstance(found, InferenceModelRewrite):
        _rules(found)
    return found


def _rules(found: InferenceModelRewrite) -> None:
    """What a schema says beyond types. Raises ValueError."""
    if not found.spec.rules:
        raise ValueError("spec.rules is empty; give at least one rule, or remove the object")
    for number, rule in enumerate(found.spec.rules):
        if not all(target.model_rewrite for target in rule.targets):
            raise ValueError(f"spec.rules[{number}]: a target's modelRewrite is empty; name the model engines serve")
        if any(match.model is not None and not match.model.value for match in rule.matches or ()):
            raise ValueError(f"spec.rules[{number}]: a match's value is empty; leave `matches` out to match all models")


def _unknown(value: object, kind: inspect.Type, path: str) -> Iterator[str]:
    """Fields that `kind` does not have, anywhere in `value`."""
    if isinstance(kind, inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in kind.fields}
        for name, inner in value.items():
            if name in fields:
                yield from _unknown(inner, fields[name], f"{path}.{name}")
            else:
                close = get_close_matches(str(name), fields, n=1)
                hint = f"did you mean {close[0]}?" if close else f"have: {', '.join(fields)}"
                yield f"{path} has no field {name!r}; {hint}"
    elif isinstance(kind, inspect.VarTupleType) and isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _unknown(inner, kind.item_type, f"{path}[{number}]")
    elif isinstance(kind, inspect.UnionType):
        for one in kind.types:
            yield from _unknown(value, one, path)


def _doubts(found: Kinds) -> Iterator[str]:
    """What is allowed and rarely meant."""
    for number, rule in enumerate(found.spec.rules if isinstance(found, InferenceModelRewrite) else ()):
        weighted = {target.weight is not None for target in rule.targets}
        if len(weighted) == 2:
            yield f"spec.rules[{number}]: targets without a weight are never chosen beside those with one; give all one"


def _plain(error: Exception) -> str:
    """What the text of a decoding error lacks: the remedy."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply; write it without aliases"
    text = str(error)
    return f"{text}; put it in quotes" if text.startswith("Expected `str`") else text
