"""The model's name put into requests and taken back out of responses, with everything else left as it was sent."""

from __future__ import annotations

import msgspec

from epp.bodies.jsonbody import MALFORMED, OBJECT, detail
from epp.bodies.lines import Lines
from epp.types import Refused

MAX_BODY_BYTES = 8 << 20
"""A longer JSON response is passed on unchanged instead of being held."""

_NAME = msgspec.json.Decoder(str)


def set_model(body: bytes, model: str) -> bytes:
    """The JSON object `body` with its top-level `model` set, or added at the end. The order of fields and the bytes
    of every other value stay. Raises Refused(400) if it is not a JSON object or `model` is not Unicode text."""
    try:
        fields: dict[str, msgspec.Raw | str] = dict(OBJECT.decode(body))
        fields["model"] = model
        return msgspec.json.encode(fields)
    except MALFORMED as error:
        raise Refused(400, f"error unmarshaling request bodyMap: {detail(error)}") from None
    except UnicodeEncodeError:
        raise Refused(400, f"model name {model!r} is not valid Unicode") from None


class ModelMapper:
    """Gives back the client's model name in one response.

    A JSON body is held until it ends; of server-sent events only the incomplete line is. Looked at are the top-level
    `model` of the body and of each event, and in events `response.model` (OpenAI responses) and `message.model`
    (Anthropic message_start); generated text is never touched. The length may change, so a content-length sent
    before no longer holds.
    """

    __slots__ = ("_held", "_incoming", "_lines", "_overlong", "_sse", "_target")

    def __init__(self, target: str, incoming: str, sse: bool) -> None:
        self._target = target
        self._incoming = msgspec.Raw(msgspec.json.encode(incoming))
        self._sse = sse
        self._lines = Lines()
        self._held = bytearray()
        self._overlong = False

    def feed(self, piece: bytes) -> bytes:
        """What can be passed on now."""
        if self._sse:
            return b"".join([self._line(line) if whole else line for line, whole in self._lines.feed(piece)])
        self._held += piece
        if not self._overlong and len(self._held) <= MAX_BODY_BYTES:
            return b""
        self._overlong = True
        return self._release()

    def end(self) -> bytes:
        """The rest."""
        if self._sse:
            return b"".join([self._line(line) for line, _ in self._lines.end()])
        body = self._release()
        return self._mapped(body, ()) or body

    def _release(self) -> bytes:
        held, self._held = bytes(self._held), bytearray()
        return held

    def _line(self, line: bytes) -> bytes:
        if b'"model"' not in line or not line.startswith(b"data:"):
            return line
        text = line[5:].strip()
        mapped = self._mapped(text, ("response", "message"))
        return line if mapped is None else line.replace(text, mapped, 1)

    def _mapped(self, text: bytes, inner: tuple[str, ...]) -> bytes | None:
        """`text` with the names given back, `inner` fields included; None if there is nothing to change."""
        if b'"model"' not in text:
            return None
        try:
            fields = OBJECT.decode(text)
        except MALFORMED:
            return None
        changed = self._rename(fields)
        for name in inner:
            within = self._mapped(bytes(fields.get(name, b"")), ())
            if within is not None:
                fields[name] = msgspec.Raw(within)
                changed = True
        return msgspec.json.encode(fields) if changed else None

    def _rename(self, fields: dict[str, msgspec.Raw]) -> bool:
        try:
            found = "model" in fields and _NAME.decode(fields["model"]) == self._target
        except MALFORMED:
            return False
        if found:
            fields["model"] = self._incoming
        return found
