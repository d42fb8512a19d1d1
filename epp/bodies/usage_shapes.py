"""Where engines put their token counts in JSON: the decoders of responses.

Not compiled: msgspec must see the annotations as they are written.
"""

from __future__ import annotations

from typing import Any

import msgspec

Block = Any
"""What an engine put in the place of its counts: an object if all is well, numbers in it perhaps as strings."""


class _Inner(msgspec.Struct, gc=False):
    usage: Block = None


class _Event(msgspec.Struct, gc=False):
    usage: Block = None
    response: _Inner | None = None
    message: _Inner | None = None


class _Answer(msgspec.Struct, gc=False):
    meta_info: Block = None


BODY = msgspec.json.Decoder(_Inner)
EVENT = msgspec.json.Decoder(_Event)
ANSWER = msgspec.json.Decoder(_Answer)
