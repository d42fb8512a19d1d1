"""Request bodies that are JSON objects: one decode of the needed fields, and the error that tells what is wrong.

Objects are read as the Go JSON decoder of the llm-d router reads them: unknown fields are ignored, null counts as
absent, the last of repeated fields wins and a top-level field's name matches in any letter case. The last is tried only
when the body does not do as it is, so that nobody else pays for it. Unlike there, text that is not Unicode (invalid
UTF-8, half a surrogate pair) is refused: engines refuse it too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from epp.bodies.parsed import Parsed
from epp.types import Refused

MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises on bad input; ValidationError is a DecodeError."""

OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])

Loose = Any
"""A field that is used if it has the right type and ignored if not, as clients send all sorts of things."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How one kind of body is read and how it is refused."""

    decoder: msgspec.json.Decoder[Any]
    convert: Callable[[Any], Parsed | None]
    """What a decoded body says: None if a required field is missing or empty. Raises ValidationError if a field holds
    the wrong thing."""
    missing: str
    """The refusal when a required field is missing or empty."""
    mistyped: str = ""
    """What precedes the detail when a field has a wrong type; "" = say `missing` then too."""
    malformed: str = "error unmarshaling request bodyMap"
    """What precedes the detail when the body is not a JSON object."""


def read(body: bytes, rules: Rules) -> Parsed:
    """Raises Refused(400) with one of the rules' texts."""
    parsed, reason = _attempt(body, rules)
    if parsed is not None:
        return parsed
    folded = _folded(body, rules.malformed)
    if folded:
        parsed, reason = _attempt(folded, rules)
    if parsed is None:
        raise Refused(400, reason)
    return parsed


def _attempt(body: bytes, rules: Rules) -> tuple[Parsed | None, str]:
    try:
        return rules.convert(rules.decoder.decode(body)), rules.missing
    except msgspec.ValidationError as error:
        return None, f"{rules.mistyped}: {detail(error)}" if rules.mistyped else rules.missing
    except MALFORMED as error:
        return None, f"{rules.malformed}: {detail(error)}"


def _folded(body: bytes, malformed: str) -> bytes:
    """The body with lower-case field names, empty if they all are. Raises Refused if it is not an object."""
    try:
        fields = OBJECT.decode(body)
    except MALFORMED as error:
        raise Refused(400, f"{malformed}: {detail(error)}") from None
    folded = {name.lower(): value for name, value in fields.items()}
    return b"" if folded.keys() == fields.keys() else msgspec.json.encode(folded)


def detail(error: Exception) -> str:
    """What is wrong with a JSON text, in a few words."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text = str(error)
    return "unexpected end of JSON input" if text == "Input data was truncated" else text


def text(value: Loose) -> str:
    return value if isinstance(value, str) else ""


MOST_TOKENS: Final = 1 << 53
"""A larger count is nobody's, and no float or message need hold it: JSON's numbers have any size."""


def token_limit(*values: Loose) -> int | None:
    """The first of `values` that is a whole number from 0 up; 16.0 is one, "16" and true are not. At most MOST_TOKENS,
    which limits nothing."""
    for value in values:
        if value is None:
            continue
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if whole and not isinstance(value, bool) and value >= 0:
            return min(int(value), MOST_TOKENS)
    return None


def packed(token_ids: Sequence[int | str]) -> bytes:
    """Little-endian uint32 each. Raises ValidationError if one is not that."""
    try:
        return struct.pack(f"<{len(token_ids)}I", *token_ids)
    except struct.error:
        raise msgspec.ValidationError("token ids must be integers from 0 to 4294967295") from None


def listing(value: msgspec.Raw) -> bytes:
    """A JSON array as sent, b"" if it is empty, absent or null. Raises ValidationError for anything else."""
    sent = bytes(value)
    if sent[:1] == b"[":
        return sent if sent[1:-1].strip() else b""
    if sent in {b"", b"null"}:
        return b""
    raise msgspec.ValidationError("Expected `array`")
