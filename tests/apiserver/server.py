"""The server as tests hold it: started and stopped, with its store at hand."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from ssl import SSLContext
from typing import Self

from aiohttp import web

from tests.apiserver import kubeconfig
from tests.apiserver.bindings import bound_rules
from tests.apiserver.crds import KNOWN
from tests.apiserver.errors import not_found
from tests.apiserver.faults import Faults
from tests.apiserver.kinds import BUILT_IN, NAMESPACE, Kind
from tests.apiserver.patches import merge
from tests.apiserver.rbac import Access, Rule
from tests.apiserver.serving import Face
from tests.apiserver.store import Object, Store, Stored
from tests.apiserver.writes import Deletion, Writer

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


class ApiServer:
    """A Kubernetes API server without a cluster. Everything but start and stop is synchronous: call it in the loop."""

    def __init__(
        self,
        *,
        crds: Iterable[str] = (),
        rbac: Mapping[str, tuple[str, list[Rule]]] | None = None,
        kubelet: bool = True,
        history: int = 1000,
        bookmark_s: float = 60.0,
        clock: Callable[[], float] = time.time,
        control: bool = False,
    ) -> None:
        """`rbac`: token → (user, rules), None allows everything; `history`: changes kept a kind; `control`: /faults."""
        self.store = Store(history)
        self._writer = Writer(self.store, clock, self._later if kubelet else None)
        self.faults = Faults(self.store)
        access = Access(rbac, lambda user: bound_rules(self.store, user))
        self._face = Face(self._writer, access, self.faults, bookmark_s, clock, control)
        self._runner: web.ServerRunner | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._tls = False
        self.port = 0
        for kind in BUILT_IN:
            self.store.install(kind)
        for name in NAMESPACES:
            self._writer.create(NAMESPACE, {"metadata": {"name": name}})
        for crd in crds:
            self.install(crd)

    async def start(self, port: int = 0, tls: SSLContext | None = None) -> None:
        """Serve on 127.0.0.1; port 0 takes a free one."""
        server = web.Server(self._face.answer, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._tls = tls is not None

    async def stop(self) -> None:
        """Ends all streams and closes the port; may be started again, its objects kept."""
        self.faults.silent = False
        self.faults.cut_watches()
        for timer in self._timers:
            timer.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[tuple[str, str, str]]:
        """(method, path with query, user) of each request seen."""
        return self._face.requests

    @property
    def version(self) -> str:
        """The newest resourceVersion."""
        return str(self.store.revision)

    @property
    def watches(self) -> int:
        """Streams that are open."""
        return len(self.store.watchers)

    def create(self, obj: Object) -> Object:
        """Written as it is, status included; its namespace is made where it is missing."""
        kind = self._kind_of(obj)
        return self._written(self._writer.create(kind, _in_default(kind, copy.deepcopy(obj)), trusted=True))

    def replace(self, obj: Object) -> Object:
        """The whole object, status included."""
        kind = self._kind_of(obj)
        obj = _in_default(kind, copy.deepcopy(obj))
        metadata = obj["metadata"]
        old = self._found(kind, metadata.get("namespace", ""), metadata["name"])
        return self._written(self._writer.update(old, obj, trusted=True))

    def patch(self, kind: str, namespace: str | None, name: str, merge_patch: Object) -> Object:
        old = self._found(self.kind(kind), namespace, name)
        return self._written(self._writer.update(old, merge(old.copy(), merge_patch), trusted=True))

    def delete(self, kind: str, namespace: str | None, name: str, *, grace_s: int | None = None) -> Object:
        """The object as it is afterwards; a pod with a kubelet is only marked at first."""
        old = self._found(self.kind(kind), namespace, name)
        return self._writer.delete(old, Deletion(grace_s)).copy()

    def get(self, kind: str, namespace: str | None, name: str) -> Object:
        return self._found(self.kind(kind), namespace, name).copy()

    def all(self, kind: str, namespace: str | None = None) -> list[Object]:
        bucket = self.store.bucket(self.kind(kind))
        return [bucket.objects[key].copy() for key in bucket.keys if namespace in {None, key[0]}]

    def install(self, crd: str) -> None:
        """Make a custom kind served, by the name of its CRD."""
        if crd not in KNOWN:
            raise LookupError(f"no CRD {crd!r} to install by name; have: {', '.join(KNOWN)}")
        self.create(KNOWN[crd])

    def uninstall(self, crd: str) -> None:
        """Its objects are deleted, its watches end, its paths are 404."""
        self.delete("CustomResourceDefinition", "", crd)

    def kind(self, name: str) -> Kind:
        """By kind (`Pod`), plural (`pods`), or either with its group where two groups have it."""
        found = [kind for kind in self.store.kinds if name in _names(kind)]
        if len(found) != 1:
            have = ", ".join(kind.qualified for kind in (found or self.store.kinds))
            raise LookupError(f"{'several kinds' if found else 'no kind'} {name!r}; have: {have}")
        return found[0]

    def kubeconfig(self, path: Path | str, token: str = "", ca: Path | str | None = None) -> Path:
        """A kubeconfig that points here. kubectl sends a token over https only."""
        return kubeconfig.write(path, self.url, token, ca)

    def _kind_of(self, obj: Object) -> Kind:
        for kind in self.store.kinds:
            if (kind.api_version, kind.kind) == (obj.get("apiVersion"), obj.get("kind")):
                return kind
        raise LookupError(f"no kind {obj.get('kind')!r} in {obj.get('apiVersion')!r}; install its CRD first")

    def _found(self, kind: Kind, namespace: str | None, name: str) -> Stored:
        stored = self.store.find(kind, ((namespace or "default") if kind.namespaced else "", name))
        if stored is None:
            raise not_found(kind, name)
        return stored

    def _written(self, written: Stored | Object) -> Object:
        assert isinstance(written, Stored)
        return written.copy()

    def _later(self, call: Callable[[], None]) -> None:
        """In `faults.termination_s`."""

        def act() -> None:
            self._timers.discard(timer)
            call()

        timer = asyncio.get_running_loop().call_later(self.faults.termination_s, act)
        self._timers.add(timer)


def _names(kind: Kind) -> tuple[str, ...]:
    return (kind.kind, kind.plural, kind.qualified, f"{kind.kind}.{kind.group}")


def _in_default(kind: Kind, obj: Object) -> Object:
    """An object without a namespace goes where kubectl would put it."""
    if not kind.namespaced or obj["metadata"].get("namespace"):
        return obj
    return obj | {"metadata": obj["metadata"] | {"namespace": "default"}}
