"""The optional methods of plug-ins, called along a request's life; one that fails costs only what it would tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from epp.headers import Headers, Metadata
from epp.plugins import Plugin
from epp.types import Decision, Outcome, Refused, Request

Method = Callable[..., Mapping[str, Any] | None]
"""A hook; values are strings, for `finished` mappings of JSON-like ones."""
Failed = Callable[[str, Exception], None]
"""Hears the name of a plug-in whose hook raised, and what."""


class Hooks:
    """The hooks of a configuration's plug-ins, in order of declaration."""

    def __init__(self, plugins: Iterable[Plugin] = ()) -> None:
        plugins = tuple(plugins)
        self._arrived = _methods(plugins, "arrived")
        self._picked = _methods(plugins, "picked")
        self._response_headers = _methods(plugins, "response_headers")
        self._finished = _methods(plugins, "finished")

    def arrived(self, request: Request, failed: Failed) -> None:
        """Before admission: what they return becomes attributes of the request."""
        for plugin, method in self._arrived:
            request.attributes.update(_told(plugin, failed, method, request))

    def picked(self, request: Request, decision: Decision) -> dict[str, str]:
        """Headers for the engine. It may depend on them, so a hook that fails fails the request: Refused."""
        headers: dict[str, str] = {}
        for plugin, method in self._picked:
            try:
                headers.update(method(request, decision) or {})
            except Refused:
                raise
            except Exception as error:
                message = f'PreRequest "{plugin.name}/{plugin.type.type}" failed: {error!r}'
                raise Refused(500, message, by=plugin.name) from error
        return headers

    def response_headers(
        self, request: Request, decision: Decision, seen: tuple[Headers, Metadata], failed: Failed
    ) -> dict[str, str]:
        """Headers for the client; `seen` are the response's own headers and its metadata."""
        headers: dict[str, str] = {}
        for plugin, method in self._response_headers:
            headers.update(_told(plugin, failed, method, request, decision, *seen))
        return headers

    def finished(self, request: Request, decision: Decision, outcome: Outcome, failed: Failed) -> Metadata:
        """Dynamic metadata for the response's last message, by namespace."""
        told: dict[str, dict[str, Any]] = {}  # JSON-like values
        for plugin, method in self._finished:
            for namespace, values in _told(plugin, failed, method, request, decision, outcome).items():
                told.setdefault(namespace, {}).update(values)
        return told


def _methods(plugins: tuple[Plugin, ...], name: str) -> tuple[tuple[Plugin, Method], ...]:
    found = [(plugin, plugin.hook(name)) for plugin in plugins]
    return tuple((plugin, method) for plugin, method in found if method is not None)


def _told(plugin: Plugin, failed: Failed, method: Method, *arguments: object) -> Mapping[str, Any]:
    try:
        return method(*arguments) or {}
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - a stranger's code; the request goes on without what it would have told
        failed(plugin.name, error)
        return {}
