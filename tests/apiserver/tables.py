"""Objects as clients ask to see them: whole, or as the rows of a Table."""

from __future__ import annotations

from aiohttp import web

from tests.apiserver.kinds import Kind
from tests.apiserver.reads import Page
from tests.apiserver.watches import Form


def form(request: web.BaseRequest) -> Form:
    return lambda stored: stored.json


def list_form(request: web.BaseRequest, kind: Kind, page: Page) -> bytes:
    return page.json(kind)
