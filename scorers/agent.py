"""agent-identity: tells the agents and sessions of coding clients apart, for fairness and affinity."""

from __future__ import annotations

from collections.abc import Mapping

from epp import Request

ATTRIBUTE = "agent-identity"
SESSION_HEADERS = ("x-claude-code-session-id", "x-session-affinity", "session-id", "session_id")


class AgentIdentity:
    """Take a request's agent from the first session header that has a value; it is the fairness id of those without."""

    alpha = True

    def __init__(self, *, additional_session_headers: tuple[str, ...] = ()) -> None:
        self._headers = tuple(name.lower() for name in additional_session_headers) + SESSION_HEADERS

    def arrived(self, request: Request) -> Mapping[str, str] | None:
        for name in self._headers:
            value = request.header(name).strip()
            if value:
                return {ATTRIBUTE: value}
        return None
