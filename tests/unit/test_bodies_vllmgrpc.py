"""vLLM's gRPC API, from bytes put together by hand out of its field numbers."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.bodies import Parsed
from epp.bodies.frames import MAX_MESSAGE_BYTES, Frames
from epp.bodies.vllmgrpc import SERVICE, VllmGrpcParser
from epp.types import Prompt, Refused, Usage

GENERATE, EMBED = f"/{SERVICE}/Generate", f"/{SERVICE}/Embed"
IDS = Prompt(token_ids=struct.pack("<2I", 5, 300))
TOKENIZED = b"\x12\x0b" + b"\x0a\x04text" + b"\x12\x03\x05\xac\x02"  # field 2 {1: "text", 2: [5, 300]}
CHUNK = b"\x0a\x08" + b"\x0a\x02\x01\x02" + b"\x10\x07" + b"\x18\x02"  # field 1 {1: [1, 2], 2: 7, 3: 2}
LAST = b"\x0a\x06" + b"\x10\x07" + b"\x18\x06" + b"\x20\x04"  # field 1 {2: 7, 3: 6, 4: 4}
SILENT = b"\x0a\x03" + b"\x0a\x01\x01"  # field 1 {1: [1]}
COMPLETE = b"\x12\x0c" + b"\x12\x04stop" + b"\x18\x09" + b"\x20\x03" + b"\x28\x08"  # field 2 {2, 3: 9, 4: 3, 5: 8}
EMBEDDED = b"\x0a\x08" + struct.pack("<2f", 0.5, -1.0) + b"\x10\x0b" + b"\x18\x02"  # {1: [...], 2: 11, 3: 2}


def framed(*messages: bytes, flag: int = 0) -> bytes:
    return b"".join([struct.pack(">BI", flag, len(message)) + message for message in messages])


def parse(message: bytes, path: str = GENERATE) -> Parsed:
    return VllmGrpcParser().parse(framed(message), path, {})


def usage(*pieces: bytes) -> tuple[Usage | None, int]:
    reader = VllmGrpcParser().reader("application/grpc")
    for piece in pieces:
        reader.feed(piece)
    reader.end()
    return reader.usage, reader.events


@pytest.mark.parametrize(
    ("message", "parsed"),
    [
        (b"\x0a\x01r" + TOKENIZED, Parsed("grpc-generate", prompts=(IDS,))),
        (b"\x1a\x02hi" + b"\x28\x01", Parsed("grpc-generate", stream=True, prompts=(Prompt([b"hi"]),))),
        (TOKENIZED + b"\x22\x02\x40\x10", Parsed("grpc-generate", max_output_tokens=16, prompts=(IDS,))),
        (TOKENIZED + b"\x22\x02\x40\x00", Parsed("grpc-generate", max_output_tokens=0, prompts=(IDS,))),
        (TOKENIZED + b"\x22\x05\x15\x00\x00\x00\x3f", Parsed("grpc-generate", prompts=(IDS,))),
    ],
    ids=["tokenized", "text-streamed", "limit", "limit-zero", "other-sampling"],
)
def test_a_generate_request_is_read(message: bytes, parsed: Parsed) -> None:
    assert parse(message) == parsed


def test_an_embed_request_is_read() -> None:
    assert parse(TOKENIZED, EMBED) == Parsed("grpc-embed", prompts=(IDS,))


def test_other_methods_pass_unread() -> None:
    parsed = VllmGrpcParser().parse(b"\xff", f"/{SERVICE}/HealthCheck", {})
    assert parsed == Parsed("raw", skip_response=True)


@pytest.mark.parametrize(
    ("body", "path", "text"),
    [
        (b"", GENERATE, "invalid or unsupported gRPC payload"),
        (framed(TOKENIZED, flag=1), GENERATE, "invalid or unsupported gRPC payload"),
        (framed(TOKENIZED)[:-1], GENERATE, "invalid or unsupported gRPC payload"),
        (framed(b"\xff"), GENERATE, "unmarshaling GenerateRequest: not a valid message of that type"),
        (framed(b"\xff"), EMBED, "unmarshaling EmbedRequest: not a valid message of that type"),
        (framed(b""), GENERATE, "not supported request inputType: GenerateRequest needs tokenized or text"),
        (framed(b""), EMBED, "missing tokenized input in EmbedRequest"),
    ],
)
def test_a_wrong_body_is_refused_with_the_reason(body: bytes, path: str, text: str) -> None:
    with pytest.raises(Refused) as refused:
        VllmGrpcParser().parse(body, path, {})
    assert (refused.value.status, refused.value.message) == (400, text)


@pytest.mark.parametrize(
    ("body", "told", "events"),
    [
        (framed(CHUNK, SILENT, LAST), Usage(7, 6, 13, 4), 3),
        (framed(CHUNK, SILENT), Usage(7, 2, 9, 0), 2),
        (framed(COMPLETE), Usage(9, 3, 12, 8), 1),
        (framed(EMBEDDED), Usage(11, 0, 11), 1),
        (framed(SILENT), None, 1),
        (framed(CHUNK) + framed(LAST, flag=1), Usage(7, 2, 9, 0), 1),
        (framed(b"\xff"), None, 1),
        (b"", None, 0),
    ],
    ids=["stream", "cut-stream", "complete", "embed", "silent", "compressed", "garbage", "empty"],
)
def test_usage_is_what_the_last_counting_message_tells(body: bytes, told: Usage | None, events: int) -> None:
    assert usage(body) == (told, events)


@given(st.lists(st.integers(1, 20)))
def test_usage_does_not_depend_on_how_the_response_is_cut(sizes: list[int]) -> None:
    body = framed(CHUNK, b"") + framed(b"x" * 9, flag=1) + framed(SILENT, LAST)
    cuts = [0, *[min(sum(sizes[: i + 1]), len(body)) for i in range(len(sizes))], len(body)]
    assert usage(*[body[a:b] for a, b in pairwise(cuts)]) == (Usage(7, 6, 13, 4), 4)


def test_a_message_too_long_to_hold_is_skipped() -> None:
    frames = Frames()
    size = MAX_MESSAGE_BYTES + 1
    assert frames.feed(struct.pack(">BI", 0, size) + b"x" * (size - 1)) == []
    assert frames.feed(b"x" + framed(b"next")) == [b"next"]
