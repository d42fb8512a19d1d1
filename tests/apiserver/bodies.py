"""Request and response bodies: what clients may send, and an object, a list or a Status as they asked to see it."""

from __future__ import annotations

import gzip
from typing import Any

import msgspec
import yaml
from aiohttp import web

from tests.apiserver import protobuf
from tests.apiserver.errors import ApiError, bad_request, unknown_format
from tests.apiserver.kinds import Kind
from tests.apiserver.patches import APPLY, JSON_PATCH, MERGE_PATCH, STRATEGIC, json_patch, merge
from tests.apiserver.store import Object, Stored
from tests.apiserver.strategic import strategic
from tests.apiserver.tables import View
from tests.apiserver.writes import Deletion

_JSON_OR_YAML = ("application/json", "application/yaml")
GZIP_BYTES = 128 * 1024
HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return raw_response(msgspec.json.encode(content), status, headers)


def raw_response(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, headers=HEADERS | (headers or {}))


def failure(error: ApiError) -> web.Response:
    retry = error.details.get("retryAfterSeconds")
    return json_response(error.status(), error.code, {"Retry-After": str(retry)} if retry else None)


def faulty(code: int) -> ApiError:
    """What a fault answers with: Retry-After where the real server sends one."""
    again = {"retryAfterSeconds": 1} if code in {429, 503} else {}
    return ApiError(code, _REASONS.get(code, ""), f"the server answers {code} in this test", **again)


def object_response(view: View, found: Stored | Object, status: int = 200) -> web.Response:
    """What a dry run would have stored is shown whole."""
    if isinstance(found, Stored):
        return raw_response(view.one(found), status)
    return json_response(found, status)


def list_response(request: web.BaseRequest, content: bytes) -> web.Response:
    """Large ones are compressed for who can read that, as the real server does."""
    if len(content) < GZIP_BYTES or "gzip" not in request.headers.get("Accept-Encoding", ""):
        return raw_response(content)
    return raw_response(gzip.compress(content, 1), headers={"Content-Encoding": "gzip", "Vary": "Accept-Encoding"})


async def sent(request: web.BaseRequest, kind: Kind, namespace: str) -> Object:
    """The object in the body, with the namespace of the URL."""
    if request.content_type == protobuf.MEDIA_TYPE and not kind.custom:
        content = protobuf.decode(await request.read())
    else:
        content = await _decoded(request, _JSON_OR_YAML)
    _check_type(content, kind)
    metadata = content.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise bad_request(f"{kind.kind} in version {kind.version!r} cannot be handled as a {kind.kind}: metadata")
    return _placed(content, kind, namespace)


async def _decoded(request: web.BaseRequest, accepted: tuple[str, ...]) -> Any:
    if request.content_type not in {*accepted, "application/octet-stream"}:
        raise unknown_format(accepted)
    body = await request.read()
    try:
        return msgspec.json.decode(body) if body[:1] in {b"{", b"["} else yaml.safe_load(body)
    except (msgspec.DecodeError, yaml.YAMLError) as why:
        raise bad_request(f"couldn't get version/kind; json parse error: {why}") from None


def _check_type(content: Any, kind: Kind) -> None:
    if not isinstance(content, dict):
        raise bad_request("couldn't get version/kind; json parse error: json: cannot unmarshal")
    if not kind.custom:
        _name_type(content, kind)
    version, name = content.get("apiVersion"), content.get("kind")
    if not name:
        raise bad_request("Object 'Kind' is missing")
    if name != kind.kind:
        raise bad_request(f"the object provided is unrecognized (must be of type {kind.kind}): {name}")
    if version != kind.api_version:
        why = f"the API version in the data ({version}) does not match the expected API version ({kind.api_version})"
        raise bad_request(why)


def _name_type(content: Object, kind: Kind) -> None:
    """An object of a built-in kind need not say what it is: the path tells."""
    content["kind"] = content.get("kind") or kind.kind
    content["apiVersion"] = content.get("apiVersion") or kind.api_version


def _placed(content: Object, kind: Kind, namespace: str) -> Object:
    metadata = content["metadata"]
    if not kind.namespaced:
        metadata.pop("namespace", None)
        return content
    if metadata.get("namespace") not in {None, "", namespace}:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    metadata["namespace"] = namespace
    return content


async def patch(request: web.BaseRequest, kind: Kind) -> tuple[str, Any]:
    """Its type and content."""
    accepted = (JSON_PATCH, MERGE_PATCH) if kind.custom else (JSON_PATCH, MERGE_PATCH, STRATEGIC)
    if request.content_type == APPLY:
        raise ApiError(415, "UnsupportedMediaType", "no server-side apply in this API server for tests")
    return request.content_type, await _decoded(request, accepted)


def patched(kind: Kind, old: Stored, patch: tuple[str, Any]) -> Object:
    """The object a patch makes; its name and place must be the same."""
    form, content = patch
    how = {JSON_PATCH: json_patch, MERGE_PATCH: merge, STRATEGIC: strategic}[form]
    if form != JSON_PATCH and not isinstance(content, dict):
        raise bad_request("json: cannot unmarshal array into Go value of type map[string]interface {}")
    changed: Object = how(old.copy(), content)
    _check_type(changed, kind)
    metadata = changed.get("metadata")
    if not isinstance(metadata, dict) or (metadata.get("namespace", ""), metadata.get("name")) != old.key:
        raise bad_request("the name and namespace of an object cannot be changed by a patch")
    return changed


async def deletion(request: web.BaseRequest) -> Deletion:
    """From a DeleteOptions body or the query."""
    body = await request.read()
    options = msgspec.json.decode(body) if body else {}
    preconditions = options.get("preconditions") or {}
    grace = options.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
    return Deletion(
        None if grace is None else int(grace),
        preconditions.get("uid") or "",
        preconditions.get("resourceVersion") or "",
    )


def deleted(old: Stored) -> dict[str, Any]:
    """Status Success, which names what is gone."""
    details = {"name": old.key[1], "group": old.kind.group, "kind": old.kind.plural}
    details["uid"] = old.content["metadata"]["uid"]
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }
