"""The optional methods of plug-ins, called along a request's life; one that fails costs only what it would tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from epp.headers import Headers, Metadata, OwnMetadata
from epp.plugins import PASSED_ON, Plugin, shown
from epp.types import Decision, Outcome, Refused, Request

Method = Callable[..., Mapping[str, Any] | None]
"""A hook; values are strings, for `finished` mappings of JSON-like ones."""
Check = Callable[[Any], dict[str, Any]]
"""Gives back what a hook told, or raises TypeError, ValueError (of which UnicodeError is one) or OverflowError."""
DEEPEST: Final = 24
"""Of metadata: each level takes three of the hundred that readers of protobuf allow. Compiled code has no limit of its
own to how deep it calls itself."""
TEXT: Final = str.__str__
Failed = Callable[[str, BaseException], None]
"""Hears the name of a plug-in whose hook raised, and what."""


class Hooks:
    """The hooks of a configuration's plug-ins, in order of declaration."""

    def __init__(self, plugins: Iterable[Plugin] = ()) -> None:
        plugins = tuple(plugins)
        self._arrived = _methods(plugins, "arrived")
        self._picked = _methods(plugins, "picked")
        self._response_headers = _methods(plugins, "response_headers")
        self._finished = _methods(plugins, "finished")

    @property
    def of_responses(self) -> bool:
        """Some plug-in has `response_headers`."""
        return bool(self._response_headers)

    @property
    def of_ends(self) -> bool:
        """Some plug-in has `finished`."""
        return bool(self._finished)

    def arrived(self, request: Request, failed: Failed) -> None:
        """Before admission: what they return becomes attributes of the request."""
        for plugin, method in self._arrived:
            request.attributes.update(_told(plugin, failed, _texts, method, request))

    def picked(self, request: Request, decision: Decision) -> dict[str, str]:
        """Headers for the engine. It may depend on them, so a hook that fails fails the request: Refused."""
        headers: dict[str, str] = {}
        for plugin, method in self._picked:
            try:
                told = method(request, decision)
                if told is not None:
                    headers.update(_texts(told))
            except PASSED_ON:
                raise
            except BaseException as error:
                message = f'PreRequest "{plugin.name}/{plugin.type.type}" failed: {shown(error)}'
                raise Refused(500, message, by=plugin.name) from error
        return headers

    def response_headers(
        self, request: Request, decision: Decision, seen: tuple[Headers, Metadata], failed: Failed
    ) -> dict[str, str]:
        """Headers for the client; `seen` are the response's own headers and its metadata."""
        headers: dict[str, str] = {}
        for plugin, method in self._response_headers:
            headers.update(_told(plugin, failed, _texts, method, request, decision, *seen))
        return headers

    def finished(self, request: Request, decision: Decision, outcome: Outcome, failed: Failed) -> OwnMetadata:
        """Dynamic metadata for the response's last message, by namespace."""
        told: OwnMetadata = {}
        for plugin, method in self._finished:
            try:
                found = _told(plugin, failed, _namespaces, method, request, decision, outcome)
            except Refused as refusal:
                # The request is over: nothing is left to refuse.
                failed(plugin.name, refusal)
                continue
            for namespace, values in found.items():
                told.setdefault(namespace, {}).update(values)
        return told


def _methods(plugins: tuple[Plugin, ...], name: str) -> tuple[tuple[Plugin, Method], ...]:
    found = [(plugin, plugin.hook(name)) for plugin in plugins]
    return tuple((plugin, method) for plugin, method in found if method is not None)


def _told(plugin: Plugin, failed: Failed, check: Check, method: Method, *arguments: object) -> dict[str, Any]:
    try:
        return check(method(*arguments))
    except PASSED_ON:
        raise
    except BaseException as error:  # noqa: BLE001 - a stranger's code; the request goes on without what it would tell
        failed(plugin.name, error)
        return {}


def _texts(told: Any) -> dict[str, str]:
    if told is None:
        return {}
    if not isinstance(told, Mapping) or not all(isinstance(text, str) for pair in told.items() for text in pair):
        raise TypeError(f"a hook must return a mapping of text to text or None; got {told!r}")
    return {_text(name): _text(value) for name, value in told.items()}


def _text(told: str) -> str:
    """It as plain text, whatever class a stranger made of it. Raises UnicodeEncodeError if it can't be sent."""
    text = TEXT(told)
    if not text.isascii():
        text.encode()
    return text


def _namespaces(told: Any) -> dict[str, dict[str, Any]]:
    if told is None:
        return {}
    if not isinstance(told, Mapping) or not all(isinstance(values, Mapping) for values in told.values()):
        raise TypeError(f"finished must return metadata by namespace and name, or None; got {told!r}")
    found: dict[str, dict[str, Any]] = _jsonlike(told)
    return found


def _jsonlike(value: Any, depth: int = 0) -> Any:
    if depth > DEEPEST:
        raise ValueError(f"metadata is nested deeper than {DEEPEST}")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {_text(str(name)): _jsonlike(member, depth + 1) for name, member in value.items()}
    return [_jsonlike(member, depth + 1) for member in value] if isinstance(value, list | tuple) else float(value)
