"""Failures in the words of the real server: each is a Status object."""

from __future__ import annotations

from typing import Any

from tests.apiserver.kinds import Kind


class ApiError(Exception):
    """An answer that is a Status with status Failure."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        """`details` become the Status' details; `meta` among them its metadata."""
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.meta: dict[str, Any] = details.pop("meta", {})
        self.details = {key: value for key, value in details.items() if value not in ("", None)}

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.meta,
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details:
            status["details"] = self.details
        return status | {"code": self.code}


class PageNotFound(Exception):
    """No handler is installed for the path: the answer is plain text and no Status."""


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def not_found(kind: Kind, name: str) -> ApiError:
    return ApiError(
        404, "NotFound", f'{kind.qualified} "{name}" not found', name=name, group=kind.group, kind=kind.plural
    )


def no_such_resource() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def not_allowed() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message)


def already_exists(kind: Kind, name: str) -> ApiError:
    message = f'{kind.qualified} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, name=name, group=kind.group, kind=kind.plural)


def conflict(kind: Kind, name: str, why: str = "") -> ApiError:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {kind.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, name=name, group=kind.group, kind=kind.plural)


def expired(asked: int, oldest: int) -> ApiError:
    return ApiError(410, "Expired", f"too old resource version: {asked} ({oldest})")


def expired_list() -> ApiError:
    return ApiError(410, "Expired", "The resourceVersion for the provided list is too old.")


def expired_continue(restart: str = "") -> ApiError:
    """`restart` is a token that goes on from the same key with what is stored now."""
    message = (
        "The provided continue parameter is too old to display a consistent list result. You can start a new list "
        "without the continue parameter."
    )
    if restart:
        message = (
            message[:-1] + ", or use the continue token in this response to retrieve the remainder of the results. "
            "Continuing with the provided token results in an inconsistent list - objects that were created, modified, "
            "or deleted between the time the first chunk was returned and now may show up in the list."
        )
    return ApiError(410, "Expired", message, meta={"continue": restart} if restart else {})


def too_large_version(asked: int, current: int) -> ApiError:
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    return ApiError(504, "Timeout", message, causes=causes, retryAfterSeconds=1)


def unknown_format(accepted: tuple[str, ...]) -> ApiError:
    message = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    return ApiError(415, "UnsupportedMediaType", message)


def not_acceptable() -> ApiError:
    message = "only the following media types are accepted: application/json"
    return ApiError(406, "NotAcceptable", message)


def invalid(kind: Kind, name: str, field: str, why: str) -> ApiError:
    """`why` as the validators say it, e.g. `Invalid value: "X": must be …` or `Required value: …`."""
    causes = [{"reason": _cause(why), "message": why, "field": field}]
    message = f'{_group_kind(kind)} "{name}" is invalid: {field}: {why}'
    return ApiError(422, "Invalid", message, name=name, group=kind.group, kind=kind.kind, causes=causes)


def unprocessable(message: str) -> ApiError:
    """What a patch that cannot be applied is answered with."""
    causes = [{"reason": "UnexpectedServerResponse", "message": message}]
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", causes=causes)


def _group_kind(kind: Kind) -> str:
    return f"{kind.kind}.{kind.group}" if kind.group else kind.kind


def _cause(why: str) -> str:
    causes = {"Required": "FieldValueRequired", "Forbidden": "FieldValueForbidden"}
    return causes.get(why.partition(" ")[0].rstrip(":"), "FieldValueInvalid")
