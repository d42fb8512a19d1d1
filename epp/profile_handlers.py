"""The handlers that say which profile runs."""

from __future__ import annotations

from collections.abc import Mapping

from epp.types import Refused, Request, Run


def single_profile_handler(request: Request, profiles: tuple[str, ...], runs: Mapping[str, Run]) -> list[str]:
    """Run the only profile."""
    return [] if runs else list(profiles)


def header_profile_handler(
    request: Request,
    profiles: tuple[str, ...],
    runs: Mapping[str, Run],
    *,
    header_name: str = "epp-profile",
    default_profile: str = "decode",
) -> list[str]:
    """Run the profile that a request header names; with only one profile, always that one."""
    if runs:
        return []
    if len(profiles) == 1:
        return list(profiles)
    header = header_name.strip().lower()
    wanted = request.header(header).strip() or default_profile
    if wanted not in profiles:
        raise Refused(
            429,
            f"failed to find target endpoint: header {header} names no profile: {wanted!r}; "
            f"have: {', '.join(profiles)}",
            by="header-profile-handler",
        )
    return [wanted]


# Upstream ships it as an alpha type.
header_profile_handler.alpha = True  # type: ignore[attr-defined]
