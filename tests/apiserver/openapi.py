"""As little OpenAPI as clients need."""

from __future__ import annotations

from aiohttp import web

from tests.apiserver.errors import PageNotFound
from tests.apiserver.kinds import Kind


def answer(request: web.BaseRequest, kinds: list[Kind]) -> web.Response:
    raise PageNotFound
