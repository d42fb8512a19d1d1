"""What an engine is asked to read: prompts as plug-ins see them and as processes pass them on."""

from __future__ import annotations

from msgspec import Struct


class Media(Struct, frozen=True, array_like=True):
    """An image, video or audio part of a prompt."""

    kind: str
    """image, video or audio."""
    content: str
    """URL, data URL or base64 data, as sent."""


class Prompt(Struct, array_like=True):
    """One prompt, in order: text as UTF-8 bytes and media; or token ids as little-endian uint32 bytes."""

    parts: list[bytes | Media] = []
    token_ids: bytes | None = None
