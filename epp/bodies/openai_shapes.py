"""The request bodies of the OpenAI APIs, as far as the picker reads them.

Not compiled: msgspec must see the annotations as they are written.
"""

from __future__ import annotations

import msgspec

from epp.bodies.jsonbody import Loose

# The array forms of msgspec's unions cannot be told apart by what they hold, so strings and ids share one.
Texts = str | list[str | int] | None
ABSENT = msgspec.Raw()


class Source(msgspec.Struct, gc=False):
    url: str | None = None


class Audio(msgspec.Struct, gc=False):
    content: str | None = msgspec.field(default=None, name="data")


class Block(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    image_url: Source | None = None
    video_url: Source | None = None
    audio_url: Source | None = None
    input_audio: Audio | None = None


class Message(msgspec.Struct, gc=False):
    role: str | None = None
    content: str | list[Block] | None = None


class Body(msgspec.Struct, gc=False):
    model: Loose = None
    stream: Loose = None
    cache_salt: str | None = None


class Chat(Body, gc=False):
    messages: list[Message] | None = None
    tools: msgspec.Raw = ABSENT
    documents: msgspec.Raw = ABSENT
    max_completion_tokens: Loose = None
    max_tokens: Loose = None
    # Only their types matter: an engine refuses them too.
    chat_template: str | None = None
    chat_template_kwargs: dict[str, msgspec.Raw] | None = None
    return_assistant_tokens_mask: bool | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None


class Completions(Body, gc=False):
    prompt: Texts = None
    max_tokens: Loose = None


class Embeddings(Body, gc=False):
    input: Texts = None


class Responses(Body, gc=False):
    input: msgspec.Raw = ABSENT
    instructions: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    max_output_tokens: Loose = None


class Item(msgspec.Struct, gc=False, omit_defaults=True):
    type: str | None = None
    role: str | None = None
    content: Loose = None


class Conversations(Body, gc=False):
    items: list[Item] | None = None
    metadata: dict[str, msgspec.Raw] | None = None


class Images(Body, gc=False):
    prompt: str | None = None
