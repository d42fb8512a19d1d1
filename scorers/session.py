"""session-id-producer: who a request belongs to, from a header or a cookie."""

from __future__ import annotations

from epp import Request, signal


@signal(provides={"session_id": ""})
class SessionIdProducer:
    """Read the session id from the header or the cookie that is configured, exactly one of them."""

    def __init__(self, *, header_name: str = "", cookie_name: str = "") -> None:
        if bool(header_name) == bool(cookie_name):
            raise ValueError("give exactly one of headerName and cookieName")
        self._header = header_name.lower()
        self._cookie = cookie_name

    def __call__(self, request: Request) -> str:
        if self._header:
            return request.header(self._header).strip()
        return cookie(request, self._cookie)


def cookie(request: Request, name: str) -> str:
    """The value of the first cookie of that name, "" if there is none (RFC 6265, 4.2)."""
    for line in request.headers.get("cookie", ()):
        for pair in line.split(";"):
            key, _, value = pair.partition("=")
            if key.strip() == name:
                return value.strip().strip('"')
    return ""
