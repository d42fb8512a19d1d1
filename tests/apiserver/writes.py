"""Create, update and delete as the real server means them: names, versions, generations, grace, finalizers."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from tests.apiserver import checks
from tests.apiserver.crds import kind_of
from tests.apiserver.errors import already_exists, bad_request, conflict, invalid, not_found
from tests.apiserver.kinds import CRD, NAMESPACE, POD, Kind
from tests.apiserver.store import Key, Object, Store, Stored, key_of

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_KEPT = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName")
"""Metadata that a writer cannot change."""


@dataclass(frozen=True)
class Deletion:
    """What a delete asks for."""

    grace_s: int | None = None
    uid: str = ""
    resource_version: str = ""


class Writer:
    """The rules of writing, over one store. `later(seconds, call)` does what a kubelet does after a while."""

    def __init__(self, store: Store, clock: Callable[[], float], later: Callable[[Callable[[], None]], None] | None):
        self.store = store
        self._clock = clock
        self._later = later

    def now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def prepared(self, kind: Kind, sent: Object, *, trusted: bool) -> Object:
        """A new object as it would be stored, made of `sent`, which belongs to it from here on.

        A trusted writer sets the status too, as a controller would soon after, and may store what no client could.
        """
        content = sent | {"kind": kind.kind, "apiVersion": kind.api_version}
        metadata = content["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + "".join(secrets.choice(_SUFFIX) for _ in range(5))
        checks.name(kind, metadata.get("name") or "")
        if not trusted:
            checks.content(kind, content)
        for given in ("deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink"):
            metadata.pop(given, None)
        metadata["uid"] = str(uuid4())
        if not (trusted and metadata.get("creationTimestamp")):
            metadata["creationTimestamp"] = self.now()
        if kind.generation:
            metadata["generation"] = 1
        return _initial(kind, content, trusted=trusted)

    def create(self, kind: Kind, sent: Object, *, trusted: bool = False, dry_run: bool = False) -> Stored | Object:
        """Stores and returns the object; with `dry_run` only returns it."""
        content = self.prepared(kind, sent, trusted=trusted)
        namespace, name = key_of(content)
        if sent["metadata"].get("resourceVersion") and not trusted:
            raise bad_request("resourceVersion should not be set on objects to be created")
        self._check_namespace(namespace, trusted=trusted)
        if self.store.find(kind, (namespace, name)):
            raise already_exists(kind, name)
        if dry_run:
            return content
        return self._put(kind, content)

    def _put(self, kind: Kind, content: Object) -> Stored:
        """A definition makes its kind served."""
        if kind == CRD:
            self.store.install(kind_of(content))
        return self.store.put(kind, content)

    def _check_namespace(self, namespace: str, *, trusted: bool) -> None:
        if not namespace or self.store.find(NAMESPACE, ("", namespace)):
            return
        if not trusted:
            raise not_found(NAMESPACE, namespace)
        self.create(NAMESPACE, {"metadata": {"name": namespace}})

    def update(
        self, old: Stored, sent: Object, *, subresource: str = "", trusted: bool = False, dry_run: bool = False
    ) -> Stored | Object:
        """Replaces an object, or its status only, or all but its status. An unchanged object is not written anew."""
        kind, name = old.kind, key_of(old.content)[1]
        self._check_version(old, sent["metadata"])
        content = _merged_parts(old, sent, subresource, trusted=trusted)
        _keep_identity(old, content["metadata"])
        if not trusted:
            checks.content(kind, content)
        if kind.generation and not subresource and _spec_of(content) != _spec_of(old.content):
            content["metadata"]["generation"] = old.content["metadata"].get("generation", 0) + 1
        if content == old.content:
            return old
        if dry_run:
            return content
        return self._settled(old, content, name)

    def check_conditional(self, old: Stored, sent: Object) -> None:
        """Kinds that are written by several at once demand the version that the writer saw."""
        if not old.kind.unconditional and not sent["metadata"].get("resourceVersion"):
            why = "Invalid value: 0: must be specified for an update"
            raise invalid(old.kind, old.key[1], "metadata.resourceVersion", why)

    def _settled(self, old: Stored, content: Object, name: str) -> Stored:
        """An object that only waited for its finalizers goes with the last of them."""
        metadata = content["metadata"]
        stored = self._put(old.kind, content)
        waits = old.content["metadata"].get("finalizers") and not metadata.get("finalizers")
        if waits and metadata.get("deletionTimestamp"):
            self.store.remove(stored)
        return stored

    def _check_version(self, old: Stored, metadata: dict[str, Any]) -> None:
        name = old.content["metadata"]["name"]
        if metadata.get("uid") not in {None, "", old.content["metadata"]["uid"]}:
            why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: "
            raise conflict(old.kind, name, why + old.content["metadata"]["uid"])
        version = metadata.get("resourceVersion")
        if version and version != str(old.revision):
            raise conflict(old.kind, name)

    def delete(self, old: Stored, deletion: Deletion = Deletion(), *, dry_run: bool = False) -> Stored:
        """The object as it is afterwards: marked and waiting for its kubelet or finalizers, or gone."""
        self._check_preconditions(old, deletion)
        if dry_run:
            return old
        if old.kind is NAMESPACE:
            self._empty(old.content["metadata"]["name"])
        grace_s = self._grace(old, deletion)
        if grace_s == 0 and not old.content["metadata"].get("finalizers"):
            return self._removed(old)
        return self._marked(old, grace_s)

    def _removed(self, old: Stored) -> Stored:
        if old.kind == CRD:
            self.store.uninstall(kind_of(old.content))
        return self.store.remove(old)

    def _check_preconditions(self, old: Stored, deletion: Deletion) -> None:
        metadata = old.content["metadata"]
        for field, wanted, found in (
            ("UID", deletion.uid, metadata["uid"]),
            ("ResourceVersion", deletion.resource_version, metadata["resourceVersion"]),
        ):
            if wanted and wanted != found:
                why = f"Precondition failed: {field} in precondition: {wanted}, {field} in object meta: {found}"
                raise conflict(old.kind, metadata["name"], why)

    def _grace(self, old: Stored, deletion: Deletion) -> int:
        """Seconds a pod may take to end; 0 for anything that no kubelet runs."""
        ended = old.content.get("status", {}).get("phase") in {"Succeeded", "Failed"}
        if old.kind != POD or self._later is None or ended:
            return 0
        if deletion.grace_s is not None:
            return max(deletion.grace_s, 0)
        grace: int = old.content.get("spec", {}).get("terminationGracePeriodSeconds", 30)
        return grace

    def _marked(self, old: Stored, grace_s: int) -> Stored:
        metadata = old.content["metadata"]
        shorter = grace_s < metadata.get("deletionGracePeriodSeconds", grace_s + 1)
        if not shorter and "deletionTimestamp" in metadata:
            return old
        marks = {
            "deletionTimestamp": datetime.fromtimestamp(self._clock() + grace_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "deletionGracePeriodSeconds": grace_s,
        }
        marked = self.store.put(old.kind, old.content | {"metadata": metadata | marks})
        if grace_s and self._later is not None:
            self._later(lambda: self._ended(marked.kind, marked.key, metadata["uid"]))
        return marked

    def _ended(self, kind: Kind, key: Key, uid: str) -> None:
        """The kubelet's last act: the pod is removed unless it is gone or another one by then."""
        found = self.store.find(kind, key)
        if found is None or found.content["metadata"]["uid"] != uid:
            return
        if found.content["metadata"].get("finalizers"):
            metadata = found.content["metadata"] | {"deletionGracePeriodSeconds": 0}
            self.store.put(kind, found.content | {"metadata": metadata})
        else:
            self.store.remove(found)

    def _empty(self, namespace: str) -> None:
        """The namespace controller's work, at once."""
        for bucket in list(self.store.buckets):
            for key in [key for key in bucket.keys if key[0] == namespace]:
                self.store.remove(bucket.objects[key])


def _merged_parts(old: Stored, sent: Object, subresource: str, *, trusted: bool) -> Object:
    """What a write may change of an object: its status, all but its status, or everything."""
    content = sent | {"kind": old.kind.kind, "apiVersion": old.kind.api_version}
    if subresource == "status":
        merged = dict(old.content) | {"metadata": dict(old.content["metadata"])}
        merged.pop("status", None)
        return merged | ({"status": content["status"]} if "status" in content else {})
    if old.kind.status and not trusted:
        content.pop("status", None)
        if "status" in old.content:
            content["status"] = old.content["status"]
    return content


def _keep_identity(old: Stored, metadata: dict[str, Any]) -> None:
    kept = old.content["metadata"]
    metadata.pop("managedFields", None)
    metadata.pop("selfLink", None)
    for field in (*_KEPT, "generation", "resourceVersion"):
        metadata.pop(field, None)
        if field in kept:
            metadata[field] = kept[field]


def _spec_of(content: Object) -> Object:
    return {key: value for key, value in content.items() if key not in {"metadata", "status"}}


def _initial(kind: Kind, content: Object, *, trusted: bool) -> Object:
    """What the server itself sets in a new object."""
    if kind.status and not trusted:
        content.pop("status", None)
    if kind == POD:
        content.setdefault("status", {}).setdefault("phase", "Pending")
    if kind == CRD:
        content["status"] = {
            "acceptedNames": content["spec"]["names"],
            "conditions": [{"type": each, "status": "True"} for each in ("NamesAccepted", "Established")],
            "storedVersions": [kind_of(content).version],
        }
    if kind == NAMESPACE:
        content["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = content["metadata"]["name"]
        content.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
        content.setdefault("status", {}).setdefault("phase", "Active")
    return content
