"""Request bodies as records, and the parts that several APIs share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from sim.api import ApiError
from sim.text import render

T = TypeVar("T", bound=msgspec.Struct)


class Part(msgspec.Struct):
    text: str = ""


Content = str | list[Part] | None


class Message(msgspec.Struct):
    role: str = "user"
    content: Content = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


def decode(body: bytes, into: type[T]) -> T:
    """ApiError(400) that says what is wrong where."""
    try:
        return msgspec.json.decode(body, type=into)
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        raise ApiError(400, f"the request body cannot be read: {wrong}") from wrong


def plain_text(content: Content) -> str:
    """Text parts joined; images and the like count for nothing."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join([part.text for part in content])


def conversation(messages: Iterable[Message]) -> bytes:
    return render([(message.role, plain_text(message.content).encode()) for message in messages])


def positive(value: int | None, name: str) -> int | None:
    if value is not None and value < 1:
        raise ApiError(400, f"{name} must be at least 1, got {value}.", name)
    return value


def json_text(text: str) -> str:
    """As a JSON string, quotes included."""
    return msgspec.json.encode(text).decode()
