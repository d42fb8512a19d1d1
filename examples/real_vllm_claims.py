"""Claims about single requests in front of real vLLM, each shown by figures that the parts themselves tell."""

from __future__ import annotations

import json
import random
import time
import urllib.error
from collections import Counter
from collections.abc import Iterator, Mapping

from epp.feeds.engines import engines
from epp.feeds.reading import read

from .real_vllm_parts import MODEL, Page, Vllm
from .real_vllm_site import Answer, Check, Site, by_server, chat, post, prompt, settles

PROMPTS = 12
ROUNDS = 3
HITS = "vllm:prefix_cache_hits_total"
HIT_BYTES = "llm_d_epp_prefix_indexer_hit_bytes_sum"


def repeated_prompts_return(site: Site) -> Iterator[Check]:
    """Also that what the picker remembers is what vLLM's prefix cache holds."""
    before, told = site.totals(HITS), site.picker.total(HIT_BYTES)
    first = {number: site.ask(prompt(number)).server for number in range(PROMPTS)}
    counts = Counter(first.values())
    yield Check(f"{PROMPTS} different prompts, once each: {by_server(counts)}", len(counts) == len(site.servers))
    fresh = {name: hits - before[name] for name, hits in site.totals(HITS).items()}
    again = random.Random(1).sample(range(PROMPTS), PROMPTS)
    answers = [(number, site.ask(prompt(number))) for _ in range(ROUNDS) for number in again]
    returned = sum(answer.server == first[number] for number, answer in answers)
    text = f"{ROUNDS} times more each, shuffled: {returned} of {len(answers)} went to the prompt's first server"
    yield Check(text, returned == len(answers))
    grown = {name: hits - before[name] for name, hits in site.totals(HITS).items()}
    yield from _cache_hits(fresh, grown, [answer for _, answer in answers])
    expected = (site.picker.total(HIT_BYTES) - told) / len(answers)
    size = _block_tokens(site.servers[0])
    text = f"of each repeat the picker expected {expected:,.0f} bytes there, in vLLM's blocks of {size:.0f} tokens"
    yield Check(text, expected > 0 and expected % (4 * size) == 0)
    yield _every_vote_counted(site)


def _cache_hits(fresh: Mapping[str, float], grown: Mapping[str, float], answers: list[Answer]) -> Iterator[Check]:
    text = f"vLLM's own prefix_cache_hits_total grew by {sum(fresh.values()):,.0f} tokens with the first round,"
    yield Check(text, not any(fresh.values()))
    of = sum(answer.usage.prompt_tokens for answer in answers)
    share = sum(grown.values()) / of
    yield Check(f"with the repeats by {by_server(grown)}: {share:.0%} of their {of:,} prompt tokens,", share > 0.5)
    told: Counter[str] = Counter()
    for answer in answers:
        told[answer.server] += answer.cached_tokens
    yield Check(
        "to the token what usage.prompt_tokens_details.cached_tokens of the answers says", dict(told) == dict(grown)
    )


def _every_vote_counted(site: Site) -> Check:
    """The picker leaves out plug-ins that break their contract or take over 5 ms three times in a row."""
    spoilt = site.picker.series("llm_d_epp_plugin_suspended") + site.picker.series("llm_d_epp_plugin_flaws_total")
    names = sorted({labels["plugin_name"] for labels, value in spoilt if value})
    return Check(f"plug-ins that were too slow or broke their contract: {', '.join(names) or 'none'}", not names)


def _block_tokens(server: Vllm) -> float:
    return read(server.get("/metrics").encode(), engines().default).reading.block_tokens or 0.0


def answers_are_counted(site: Site) -> Iterator[Check]:
    """Usage and TTFT in the picker's metrics, of plain and of streamed answers."""
    yield from _counted_alike(site, stream=False)
    yield from _counted_alike(site, stream=True)


def _counted_alike(site: Site, *, stream: bool) -> Iterator[Check]:
    kind, label = ("streamed", "true") if stream else ("plain", "false")
    before = _counted(site, label)
    answers = [site.ask(prompt(100 + number % 3), stream=stream, max_tokens=20) for number in range(6)]
    settles(before["requests"] + len(answers), lambda: _counted(site, label)["requests"])
    grown = {name: count - before[name] for name, count in _counted(site, label).items()}
    ttft_s = grown.pop("ttft_s") / len(answers)
    told = _told(answers)
    said = "as the answers say" if grown == told else f"but the answers say {_tokens(told)}"
    yield Check(f"{kind}: the picker counted {_tokens(grown)}, {said}", grown == told)
    seen_s = sum(answer.first_s for answer in answers) / len(answers)
    text = f"{kind}: mean TTFT {ttft_s * 1e3:.0f} ms in the picker's metrics, {seen_s * 1e3:.0f} ms at the client"
    yield Check(text, 0 < ttft_s <= seen_s)


def _told(answers: list[Answer]) -> dict[str, float]:
    return {
        "requests": len(answers),
        "input": sum(answer.usage.prompt_tokens for answer in answers),
        "cached": sum(answer.cached_tokens for answer in answers),
        "output": sum(answer.usage.completion_tokens for answer in answers),
    }


def _tokens(counts: Mapping[str, float]) -> str:
    requests, more = counts["requests"], [f"{counts[name]:,.0f} {name}" for name in ("input", "cached", "output")]
    return f"{requests:.0f} answers, {', '.join(more)} tokens"


def _counted(site: Site, streaming: str) -> dict[str, float]:
    total = site.picker.total
    return {
        "requests": total("llm_d_epp_request_ttft_seconds_count", streaming=streaming),
        "ttft_s": total("llm_d_epp_request_ttft_seconds_sum", streaming=streaming),
        "input": total("llm_d_epp_request_input_tokens_sum"),
        "cached": total("llm_d_epp_request_cached_tokens_sum"),
        "output": total("llm_d_epp_request_output_tokens_sum"),
    }


def everything_passes_through(site: Site) -> Iterator[Check]:
    """Streams piece by piece, the older API, a request without body, an engine's own refusal."""
    yield _sse(site)
    completion = site.client.completions.create(model=MODEL, prompt=prompt(200), max_tokens=5)
    finish = completion.choices[0].finish_reason
    yield Check(f"/v1/completions: {completion.object}, finish_reason {finish}", completion.object == "text_completion")
    models = [model.id for model in site.client.models.list()]
    yield Check(f"GET /v1/models, which has no body: {', '.join(models)}", models == [MODEL])
    wrong = chat("hello", model="no-such-model", max_tokens=1)
    direct, through = (_refusal(page, wrong) for page in (site.servers[0], site.envoy))
    text = f"an unknown model: {through[0]} with vLLM's own body ({json.loads(through[1])['error']['message']})"
    yield Check(text, through == direct and through[0] == 404)


def _sse(site: Site) -> Check:
    began, times, events = time.monotonic(), [], []
    body = chat(prompt(201), stream=True, max_tokens=600)  # long enough for any machine to need a while
    with post(site.envoy, "/v1/chat/completions", body) as reply:
        kind = reply.headers["content-type"]
        for line in reply:
            if line.startswith(b"data: "):
                times.append(time.monotonic() - began)
                events.append(line.removeprefix(b"data: ").strip())
    text = f"a stream: {kind}, {len(events)} events, the first after {times[0] * 1e3:.0f} ms"
    text += f" of {times[-1] * 1e3:.0f} ms, the last {events[-1].decode()}"
    piecewise = times[0] < times[-1] / 2
    return Check(text, kind.startswith("text/event-stream") and piecewise and events[-1] == b"[DONE]")


def _refusal(page: Page, body: object) -> tuple[int, str]:
    try:
        with post(page, "/v1/chat/completions", body) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
