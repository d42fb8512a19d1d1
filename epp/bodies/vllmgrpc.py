"""vLLM's gRPC API."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import DecodeError

from epp.bodies import vllm_engine_pb2 as pb
from epp.bodies.frames import Frames, first_message
from epp.bodies.jsonbody import packed
from epp.bodies.parsed import Parsed, ResponseReader
from epp.headers import Headers
from epp.types import Prompt, Refused, Usage

SERVICE = "vllm.grpc.engine.VllmEngine"


def _generate(message: bytes) -> Parsed:
    request = pb.GenerateRequest.FromString(message)
    limited = request.sampling_params.HasField("max_tokens")
    match request.WhichOneof("input"):
        case "text":
            prompt = Prompt([request.text.encode()])
        case "tokenized":
            prompt = Prompt(token_ids=packed(request.tokenized.input_ids))
        case _:
            raise Refused(400, "not supported request inputType: GenerateRequest needs tokenized or text")
    return Parsed(
        api="grpc-generate",
        stream=request.stream,
        max_output_tokens=request.sampling_params.max_tokens if limited else None,
        prompts=(prompt,),
    )


def _embed(message: bytes) -> Parsed:
    request = pb.EmbedRequest.FromString(message)
    if not request.HasField("tokenized"):
        raise Refused(400, "missing tokenized input in EmbedRequest")
    return Parsed(api="grpc-embed", prompts=(Prompt(token_ids=packed(request.tokenized.input_ids)),))


_METHODS: dict[str, Callable[[bytes], Parsed]] = {"Generate": _generate, "Embed": _embed}


class VllmGrpcParser:
    """Generate and Embed; other methods of the service pass unread. The model is whatever the server runs."""

    paths: tuple[str, ...] = tuple([f"{SERVICE}/{method}" for method in _METHODS])
    protocols: tuple[str, ...] = ("kubernetes.io/h2c",)

    def parse(self, body: bytes, path: str, headers: Headers) -> Parsed:
        method = path.rstrip("/").rpartition("/")[2]
        convert = _METHODS.get(method)
        if convert is None:
            return Parsed(api="raw", skip_response=True)
        message = first_message(body)
        if message is None:
            raise Refused(400, "invalid or unsupported gRPC payload")
        try:
            return convert(message)
        except DecodeError:
            raise Refused(400, f"unmarshaling {method}Request: not a valid message of that type") from None

    def reader(self, content_type: str) -> ResponseReader:
        return FrameUsage()


class FrameUsage:
    """The counts of Generate's chunks and completions, or of an Embed answer."""

    __slots__ = ("_frames", "complete", "events", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.events = 0
        self.complete = False
        self._frames = Frames()

    def feed(self, piece: bytes) -> None:
        for message in self._frames.feed(piece):
            self.events += 1
            self.usage = _embedded(message) or _generated(message) or self.usage

    def end(self) -> None:
        pass


def _embedded(message: bytes) -> Usage | None:
    """Only an EmbedResponse has a number as its field 2, so it can be told from a GenerateResponse."""
    try:
        tokens = pb.EmbedResponse.FromString(message).prompt_tokens
    except DecodeError:
        return None
    return Usage(prompt_tokens=tokens, total_tokens=tokens) if tokens else None


def _generated(message: bytes) -> Usage | None:
    """None while a chunk counts nothing, as most do."""
    try:
        response = pb.GenerateResponse.FromString(message)
    except DecodeError:
        return None
    counts = response.complete if response.HasField("complete") else response.chunk
    prompt, completion = counts.prompt_tokens, counts.completion_tokens
    return Usage(prompt, completion, prompt + completion, counts.cached_tokens) if prompt or completion else None
