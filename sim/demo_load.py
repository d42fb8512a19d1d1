"""The demonstration's load: chats over HTTP, streamed, sent at the same moments whoever picks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from random import Random

import aiohttp
import msgspec

from sim.demo_site import MODEL, Site
from sim.figures import Figures, Quantiles, imbalance
from sim.progress import Progress
from sim.workload import Arrival, Chat, arrival_times, chat

SHAPE = Chat(
    system_prompts=32,
    system_tokens=2000,
    zipf=0.5,
    question_tokens=(32, 96),
    answer_tokens=(16, 40),
    turns=(1, 6),
    think_s=2.0,
)
"""Long prompts that many share, short answers: computing prompts is most of the engines' work."""
CONVERSATIONS_PER_S = 5.0
SECONDS = 30.0
TOLD_EACH_S = 0.2
HEADERS = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Question:
    """One request, ready to be sent."""

    at: float
    """Seconds from the start."""
    body: bytes


def questions(seconds: float, seed: int = 0) -> list[Question]:
    """Those of the first `seconds`; the same ones each time."""
    arrivals = chat(Random(seed + 1), arrival_times(Random(seed), CONVERSATIONS_PER_S), SHAPE)
    return [Question(each.at, _body(each)) for each in takewhile(lambda each: each.at <= seconds, arrivals)]


def _body(arrival: Arrival) -> bytes:
    messages = [{"role": role, "content": content.decode()} for role, content in arrival.messages]
    asked = {"model": MODEL, "messages": messages, "max_tokens": arrival.max_tokens, "stream": True}
    return msgspec.json.encode(asked)


@dataclass(slots=True)
class Tally:
    """What has become of the requests so far."""

    sent: int = 0
    answered: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    """How many, by what went wrong."""
    ttft_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    """How long after it was due each request was sent."""
    ended_at: float = 0.0

    def failed(self, why: str) -> None:
        self.errors[why] = self.errors.get(why, 0) + 1

    @property
    def failures(self) -> int:
        return sum(self.errors.values())

    def line(self, name: str, now: float, seconds: float) -> str:
        """For the progress."""
        flying = self.sent - self.answered - self.failures
        errors = f", {self.failures} errors" if self.errors else ""
        return (
            f"{name:11} {min(now, seconds):4.0f} of {seconds:.0f} s  "
            f"{self.sent} sent, {self.answered} answered, {flying} in flight{errors}"
        )


async def measure(
    name: str, place: Site, load: Sequence[Question], progress: Progress, seconds: float
) -> tuple[Figures, Tally]:
    """Send the load, wait for every answer and count."""
    tally = Tally()
    begun = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as tasks:
        told = tasks.create_task(_tell(name, tally, progress, seconds), name="progress")
        await _send(place, load, tally)
        told.cancel()
    pages = await place.pages()
    looked_up, hits = (total(pages, f"vllm:prefix_cache_{word}_total") for word in ("queries", "hits"))
    figures = Figures(
        requests=tally.sent,
        errors=tally.failures,
        lasted_s=tally.ended_at - begun,
        ttft=Quantiles.of(tally.ttft_s),
        hit_share=sum(hits) / sum(looked_up) if sum(looked_up) else 0.0,
        imbalance=imbalance(total(pages, "vllm:request_success_total")),
    )
    return figures, tally


async def _send(place: Site, load: Iterable[Question], tally: Tally) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.TaskGroup() as tasks:
        for question in load:
            await asyncio.sleep(begun + question.at - loop.time())
            tasks.create_task(_ask(place, question.body, begun + question.at, tally))


async def _ask(place: Site, body: bytes, due: float, tally: Tally) -> None:
    loop = asyncio.get_running_loop()
    tally.sent += 1
    tally.late_s.append(loop.time() - due)
    try:
        async with place.http.post(f"{place.url}/v1/chat/completions", data=body, headers=HEADERS) as response:
            if response.status != 200:
                tally.failed(f"status {response.status}")
                return
            read = await response.content.readany()
            begun_at = loop.time()
            async for piece in response.content.iter_any():
                read = (read + piece)[-16:]
        if read.endswith(b"data: [DONE]\n\n"):
            tally.answered += 1
            tally.ttft_s.append(begun_at - due)
        else:
            tally.failed("cut off")
    except (aiohttp.ClientError, TimeoutError) as error:
        tally.failed(type(error).__name__)
    finally:
        tally.ended_at = loop.time()


async def _tell(name: str, tally: Tally, progress: Progress, seconds: float) -> None:
    begun = asyncio.get_running_loop().time()
    while True:
        progress.step(tally.line(name, asyncio.get_running_loop().time() - begun, seconds))
        await asyncio.sleep(TOLD_EACH_S)


def total(pages: Iterable[str], metric: str) -> list[float]:
    """The sum of a metric's samples on each page."""
    sample = re.compile(rf"^{re.escape(metric)}(?:{{.*}})? (\S+)$", re.MULTILINE)
    return [sum(map(float, sample.findall(page))) for page in pages]
