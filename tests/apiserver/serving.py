"""The HTTP face: who asks, may they, what for, and the answer's form."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from tests.apiserver import bodies, discovery, openapi
from tests.apiserver.errors import ApiError, PageNotFound, bad_request, no_such_resource, not_allowed, not_found
from tests.apiserver.faults import Faults
from tests.apiserver.kinds import NAMESPACE, Kind
from tests.apiserver.rbac import Access, User
from tests.apiserver.reads import page
from tests.apiserver.reviews import review
from tests.apiserver.route import Asked, asked
from tests.apiserver.store import Object, Stored
from tests.apiserver.tables import View, view
from tests.apiserver.watches import Sender, Stream, error_line
from tests.apiserver.writes import Deletion, Writer

REVIEWS = ("authentication.k8s.io", "authorization.k8s.io")
HEALTH = ("/healthz", "/livez", "/readyz")


@dataclass
class Served:
    """One request, once it is known to be about a kind we have."""

    request: web.Request
    asked: Asked
    kind: Kind
    user: User
    view: View

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query

    @property
    def dry_run(self) -> bool:
        return self.query.get("dryRun") == "All"


@dataclass
class Face:
    """Answers requests from a store."""

    writer: Writer
    access: Access
    faults: Faults
    bookmark_s: float
    clock: Callable[[], float]
    control: bool
    """Serve /faults, for a server that runs as a process."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._heard(request)
        except ApiError as error:
            return bodies.failure(error)
        except PageNotFound:
            return web.Response(status=404, text="404 page not found\n", headers={"X-Content-Type-Options": "nosniff"})

    async def _heard(self, request: web.BaseRequest) -> web.StreamResponse:
        """Faults first: they hold for whoever asks."""
        if self.control and request.path == "/faults":
            return await self._control(request)
        wanted = asked(request.method, request.path, request.query)
        user = self._recorded(request)
        if self.faults.refuse and request.transport is not None:
            request.transport.abort()
            return web.Response(status=503)
        await self._held_up(wanted)
        if code := self.faults.status_for(request.path):
            raise bodies.faulty(code)
        self.access.check(user, wanted)
        if not wanted.resource:
            return self._plain(request)
        return await self._resource(request, wanted, user)

    def _recorded(self, request: web.BaseRequest) -> User:
        path = request.path_qs
        try:
            user = self.access.user(request.headers.get("Authorization", ""))
        except ApiError:
            self.requests.append((request.method, path, ""))
            raise
        self.requests.append((request.method, path, user.name))
        return user

    async def _held_up(self, wanted: Asked) -> None:
        if self.faults.delay_s:
            await asyncio.sleep(self.faults.delay_s)
        while self.faults.silent and wanted.verb != "watch":
            await self.faults.changed().wait()

    async def _control(self, request: web.BaseRequest) -> web.Response:
        if request.method == "POST":
            self.faults.set(msgspec.json.decode(await request.read()))
        return bodies.json_response(self.faults.shown())

    def _plain(self, request: web.BaseRequest) -> web.Response:
        if request.path.rstrip("/") in HEALTH:
            return web.Response(text="ok")
        kinds = self.writer.store.kinds
        if request.path.startswith("/openapi/"):
            return openapi.answer(request, kinds)
        return discovery.answer(request, kinds)

    async def _resource(self, request: web.BaseRequest, wanted: Asked, user: User) -> web.StreamResponse:
        kind = self._kind(wanted)
        served = Served(
            request, wanted, kind, user, view(request.headers.get("Accept", ""), request.query, self.clock())
        )
        if wanted.subresource and not (wanted.subresource == "status" and kind.status and wanted.name):
            raise no_such_resource()
        if kind.namespaced and wanted.namespace == "" and wanted.verb not in {"list", "watch"}:
            raise not_allowed() if wanted.verb in {"create", "deletecollection"} else no_such_resource()
        if wanted.verb not in kind.verbs or (wanted.subresource and wanted.verb not in {"get", "update", "patch"}):
            raise not_allowed()
        return await self._verbs[wanted.verb](self, served)

    def _kind(self, wanted: Asked) -> Kind:
        kinds = self.writer.store.kinds
        in_version = [kind for kind in kinds if (kind.group, kind.version) == (wanted.group, wanted.version)]
        for kind in in_version:
            placed = kind.namespaced or not wanted.namespace or kind == NAMESPACE
            if kind.plural == wanted.resource and placed:
                return kind
        if any(not kind.custom for kind in in_version):
            raise no_such_resource()
        raise PageNotFound

    def _found(self, served: Served) -> Stored:
        namespace = served.asked.namespace if served.kind.namespaced else ""
        stored = self.writer.store.find(served.kind, (namespace, served.asked.name))
        if stored is None:
            raise not_found(served.kind, served.asked.name)
        return stored

    async def _get(self, served: Served) -> web.StreamResponse:
        return bodies.object_response(served.view, self._found(served))

    async def _list(self, served: Served) -> web.StreamResponse:
        expire = self.faults.expire_continue
        found = page(self.writer.store, served.kind, served.asked.namespace, served.query, expire=expire)
        return bodies.list_response(served.request, served.view.many(served.kind, found))

    async def _watch(self, served: Served) -> web.StreamResponse:
        stream = Stream(self.writer.store, served.kind, served.asked.namespace, served.query, served.view)
        watcher = self.writer.store.bucket(served.kind).follow()
        try:
            return await self._followed(served, stream, Sender(stream, watcher, self.faults, self.bookmark_s))
        finally:
            watcher.close()
            self.writer.store.unfollow(served.kind, watcher)

    async def _followed(self, served: Served, stream: Stream, sender: Sender) -> web.StreamResponse:
        try:
            first = stream.first()
            gone = None
        except ApiError as error:
            if self.faults.gone_as_status:
                raise
            gone = error
        response = web.StreamResponse(headers=bodies.HEADERS)
        response.enable_chunked_encoding()
        with suppress(ConnectionError):  # the client has gone
            await response.prepare(served.request)
            await (sender.run(response, first) if gone is None else response.write(error_line(gone)))
            await response.write_eof()
        return response

    async def _create(self, served: Served) -> web.StreamResponse:
        sent = await bodies.sent(served.request, served.kind, served.asked.namespace)
        if served.kind.group in REVIEWS:
            return bodies.json_response(review(served.kind.kind, sent, served.user, self.access), 201)
        if served.asked.name:
            raise not_allowed()
        created = self.writer.create(served.kind, sent, dry_run=served.dry_run)
        return bodies.object_response(served.view, created, 201)

    async def _update(self, served: Served) -> web.StreamResponse:
        sent = await bodies.sent(served.request, served.kind, served.asked.namespace)
        name = sent["metadata"].setdefault("name", served.asked.name)
        if name != served.asked.name:
            raise bad_request(
                f"the name of the object ({name}) does not match the name on the URL ({served.asked.name})"
            )
        written, code = self._put(served, sent)
        return bodies.object_response(served.view, written, code)

    def _put(self, served: Served, sent: Object) -> tuple[Stored | Object, int]:
        key = (served.asked.namespace if served.kind.namespaced else "", served.asked.name)
        old = self.writer.store.find(served.kind, key)
        if old is None and served.kind.creates_on_put and not sent["metadata"].get("resourceVersion"):
            return self.writer.create(served.kind, sent, dry_run=served.dry_run), 201
        old = self._found(served)
        self.writer.check_conditional(old, sent)
        return self.writer.update(old, sent, subresource=served.asked.subresource, dry_run=served.dry_run), 200

    async def _patch(self, served: Served) -> web.StreamResponse:
        patch = await bodies.patch(served.request, served.kind)
        old = self._found(served)
        sent = bodies.patched(served.kind, old, patch)
        written = self.writer.update(old, sent, subresource=served.asked.subresource, dry_run=served.dry_run)
        return bodies.object_response(served.view, written, 200)

    async def _delete(self, served: Served) -> web.StreamResponse:
        deletion = await bodies.deletion(served.request)
        old = self._found(served)
        left = self.writer.delete(old, deletion, dry_run=served.dry_run)
        if served.kind.returns_deleted or left.content["metadata"].get("deletionTimestamp"):
            return bodies.object_response(served.view, left)
        return bodies.json_response(bodies.deleted(old))

    async def _deletecollection(self, served: Served) -> web.StreamResponse:
        deletion = await bodies.deletion(served.request)
        found = page(self.writer.store, served.kind, served.asked.namespace, served.query)
        for stored in found.items:
            self.writer.delete(stored, Deletion(deletion.grace_s), dry_run=served.dry_run)
        return bodies.list_response(served.request, served.view.many(served.kind, found))

    _verbs: dict[str, Callable[[Any, Served], Awaitable[web.StreamResponse]]] = field(
        init=False,
        repr=False,
        default_factory=lambda: {
            "get": Face._get,
            "list": Face._list,
            "watch": Face._watch,
            "create": Face._create,
            "update": Face._update,
            "patch": Face._patch,
            "delete": Face._delete,
            "deletecollection": Face._deletecollection,
        },
    )
