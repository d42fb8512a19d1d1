"""The parts together, and how a client asks them: chats through Envoy, streams held open behind the picker's back."""

from __future__ import annotations

import json
import random
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPResponse
from pathlib import Path

from openai import OpenAI
from openai.types import CompletionUsage

from .real_vllm_parts import MODEL, Page, Picker, Vllm, picker

WORDS = ("the", "quick", "fox", "jumps", "over", "many", "small", "servers", "answer", "long", "questions", "about")


@dataclass(frozen=True)
class Check:
    """Something seen, and whether it is what was claimed."""

    text: str
    holds: bool = True


@dataclass(frozen=True)
class Answer:
    """One chat's answer and who gave it, as the picker says."""

    server: str
    decision_id: str
    usage: CompletionUsage
    headers: dict[str, str]
    first_s: float
    """From the question to the first piece of the answer, seen by the client."""
    duration_s: float

    @property
    def cached_tokens(self) -> int:
        details = self.usage.prompt_tokens_details
        return (details.cached_tokens or 0) if details else 0


@dataclass(frozen=True)
class Site:
    """Two vLLM servers, the picker, Envoy in front."""

    envoy: Page
    picker: Picker
    servers: list[Vllm]

    @cached_property
    def client(self) -> OpenAI:
        """Never tries again on its own: a failure must be seen."""
        return OpenAI(base_url=f"http://{self.envoy.address}/v1", api_key="none", max_retries=0, timeout=60)

    def ask(self, prompt: str, *, stream: bool = False, max_tokens: int = 4) -> Answer:
        """One chat of one message. Raises openai.APIError if it fails."""
        return (self._streamed if stream else self._plain)(prompt, max_tokens)

    def _plain(self, prompt: str, max_tokens: int) -> Answer:
        began = time.monotonic()
        raw = self.client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=max_tokens,
            extra_body={"ignore_eos": True},
        )
        took = time.monotonic() - began
        return self._answer(dict(raw.headers), raw.parse().usage, took, took)

    def _streamed(self, prompt: str, max_tokens: int) -> Answer:
        began = time.monotonic()
        raw = self.client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=max_tokens,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        first_s, usage = 0.0, None
        for chunk in raw.parse():
            first_s = first_s or time.monotonic() - began
            usage = chunk.usage or usage
        return self._answer(dict(raw.headers), usage, first_s, time.monotonic() - began)

    def _answer(self, headers: dict[str, str], usage: CompletionUsage | None, first_s: float, took: float) -> Answer:
        if usage is None:
            raise ValueError("the answer had no usage")
        decision_id = headers["x-epp-decision-id"]
        return Answer(self.picker.picked(decision_id), decision_id, usage, headers, first_s, took)

    def totals(self, metric: str) -> dict[str, float]:
        """A metric of vLLM's own by server."""
        return {server.name: server.total(metric) for server in self.servers}


@dataclass(frozen=True)
class Stand:
    """What stays while pickers come and go."""

    folder: Path
    servers: list[Vllm]
    envoy: Page
    grpc_port: int
    """Where Envoy looks for the picker."""

    @contextmanager
    def site(self, *flags: str) -> Iterator[Site]:
        """With a new picker, which has these flags."""
        with picker(self.folder, self.servers, self.grpc_port, *flags) as running:
            yield Site(self.envoy, running, self.servers)


def by_server(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {count:,.0f}" for name, count in sorted(counts.items()))


def prompt(number: int, words: int = 400) -> str:
    """Text that has no beginning in common with that of another number; 400 words are about 2,200 bytes."""
    return " ".join([f"{number:04}", *random.Random(number).choices(WORDS, k=words)])


def post(page: Page, path: str, body: object, **headers: str) -> HTTPResponse:
    """A bare request, its answer still unread. Raises urllib.error.HTTPError on 4xx and 5xx."""
    sent = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    asked = urllib.request.Request(f"http://{page.address}{path}", json.dumps(body).encode(), sent)
    reply: HTTPResponse = urllib.request.urlopen(asked, timeout=60)
    return reply


def chat(text: str, **more: object) -> dict[str, object]:
    """The body of a chat."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "ignore_eos": True, **more}


@contextmanager
def held(server: Vllm, count: int) -> Iterator[None]:
    """`count` streams that outlast any claim run on the server, sent to it directly: only it can tell of them."""
    with ExitStack() as stack:
        for number in range(count):
            body = chat(prompt(9000 + number, 30), stream=True, max_tokens=8000)
            stream = stack.enter_context(post(server, "/v1/chat/completions", body))
            stream.readline()
        yield


def settles(wanted: float, read: Callable[[], float], within_s: float = 20.0) -> float:
    """What `read` gives, as soon as it equals `wanted`, else what it gave last."""
    give_up = time.monotonic() + within_s
    while (seen := read()) != wanted and time.monotonic() < give_up:
        time.sleep(0.05)
    return seen
