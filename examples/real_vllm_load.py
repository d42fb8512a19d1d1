"""Claims about load and failure in front of real vLLM: what the picker reads, what it is told, what it does."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import openai

from epp.feeds.engines import engines
from epp.feeds.reading import read

from .real_vllm_parts import Vllm
from .real_vllm_site import Answer, Check, Site, Stand, by_server, chat, held, post, prompt, settles

RUNNING = "llm_d_epp_average_running_requests"
REPORT = "endpoint-load-metrics"
KV_VOTE = "kv-cache-utilization-scorer"
KINDS = ("connect", "missing", "scrape", "5xx")
ASK_EVERY_S = 1.0
"""An engine is asked for its load at most this often."""
WITHIN_S = 1.0
"""How soon requests must go elsewhere when a server dies."""
WATCHED_S = 5.0


def load_is_read(site: Site) -> Iterator[Check]:
    """From vLLM's own metrics page, and it steers."""
    busy, idle = site.servers
    with held(busy, 2):
        found = read(busy.get("/metrics").encode(), engines().default)
        reading, began = found.reading, time.monotonic()
        text = f"2 streams sent to {busy.name} directly; its page says: waiting {reading.waiting:.0f}, running "
        text += f"{reading.running:.0f}, KV usage {reading.kv_usage:.2%} of {reading.num_blocks:.0f} blocks of "
        yield Check(f"{text}{reading.block_tokens:.0f} tokens", reading.running == 2 and not found.missing)
        _all_read(site.servers, {server.name: server.scrapes() for server in site.servers})
        mean = settles(1, lambda: site.picker.total(RUNNING))
        yield Check(f"the picker's {RUNNING}: {mean:g}, {time.monotonic() - began:.1f} s later", mean == 1)
        answers = [site.ask(prompt(300 + number, 20), max_tokens=1) for number in range(6)]
    votes = _kv_votes(site, answers[-1])
    text = f"{KV_VOTE} voted {busy.name} {votes[busy.name]:.6f}, {idle.name} {votes[idle.name]:.6f}"
    yield Check(text, votes[busy.name] < votes[idle.name] == 1)
    counts = Counter(answer.server for answer in answers)
    yield Check(f"6 new prompts meanwhile: {by_server(counts)}", counts == {idle.name: 6})
    mean = settles(0, lambda: site.picker.total(RUNNING))
    yield Check(f"{RUNNING} when the streams have ended: {mean:g}", mean == 0)


def _kv_votes(site: Site, answer: Answer) -> dict[str, float]:
    """Of each endpoint by its name; 1 minus the KV usage."""
    (run,) = site.picker.decision(answer.decision_id)["runs"]
    return {one["endpoint"].partition("/")[2]: one["votes"][KV_VOTE] for one in run["candidates"]}


def load_reports(stand: Stand) -> Iterator[Check]:
    """With readings as good as off, so that what the picker knows of load it has from the reports."""
    sent = {server.name: len(server.load_reports()) for server in stand.servers}
    yield Check(f"load reports asked for without --load-report: {by_server(sent)}", not any(sent.values()))
    scraped = {server.name: server.scrapes() for server in stand.servers}
    with stand.site("--load-report", "--refresh-metrics-interval=1h") as site:
        _all_read(stand.servers, scraped)
        with held(site.servers[0], 1), held(site.servers[1], 1):
            yield from _asked(site)


def _all_read(servers: list[Vllm], before: Mapping[str, int]) -> None:
    """Wait until the picker has read every server again: what it knew of KV usage may be from another claim."""
    settles(len(before), lambda: sum(server.scrapes() > before[server.name] for server in servers))


def _asked(site: Site) -> Iterator[Check]:
    began = time.monotonic()
    answers = [site.ask(prompt(400)) for _ in range(5)]
    took_s = time.monotonic() - began
    asked = next(server for server in site.servers if server.name == answers[0].server)
    settles(1, lambda: len(asked.load_reports()))
    reports = asked.load_reports()
    text = f"5 answers from {asked.name} within {took_s:.1f} s: asked for its load {len(reports)} time(s)"
    yield Check(text, 1 <= len(reports) <= 1 + took_s / ASK_EVERY_S)
    told, vote = reports[0]["kv_cache_usage_perc"], _kv_votes(site, answers[1])[asked.name]
    text = f"it told a KV usage of {told:.6f}; in the next decision its {KV_VOTE} vote is {vote:.6f}"
    yield Check(text, told > 0 and abs(1 - told - vote) < 1e-6)
    text = f"answers through Envoy with the header {REPORT}: {sum(REPORT in answer.headers for answer in answers)} of 5"
    yield Check(text, not any(REPORT in answer.headers for answer in answers))
    with post(
        asked, "/v1/chat/completions", chat("hello", max_tokens=1), endpoint_load_metrics_format="JSON"
    ) as direct:
        report = direct.headers[REPORT]
    yield Check(f"vLLM itself, asked directly, sends it: {report}", bool(report))


@dataclass(frozen=True)
class _Tried:
    """One request after the death of a server."""

    at_s: float
    """When its outcome was known, since the kill."""
    status: int
    """200, or how it failed."""
    server: str
    bereft: bool
    """Its prompt used to go to the dead server."""
    probe: bool
    """It was sent to the dead server to see whether it lives again."""


def a_death_is_survived(site: Site) -> Iterator[Check]:
    """One server is killed under load, the prompts it had cached included."""
    victim, other = site.servers
    homes = _homes(site)
    victim.kill()
    tried = list(_trying(site, homes, victim))
    failed = [one for one in tried if one.status != 200]
    probes = [one for one in failed if one.probe]
    text = f"{victim.name} killed, then {len(tried)} requests in turn within {WATCHED_S:g} s: {len(failed)} got 503"
    yield Check(text, {one.status for one in failed} <= {503})
    last_s = max((one.at_s for one in failed if not one.probe), default=0.0)
    text = f"the last of them {last_s * 1e3:.0f} ms after the kill, but for {len(probes)} probes at {_times(probes)}"
    yield Check(text, last_s <= WITHIN_S and len(probes) <= 3)
    moved_s = min((one.at_s for one in tried if one.bereft and one.status == 200), default=WATCHED_S)
    text = f"{victim.name}'s own prompts were answered by {other.name} from {moved_s * 1e3:.0f} ms on"
    yield Check(text, moved_s <= WITHIN_S and {one.server for one in tried if one.status == 200} == {other.name})
    yield _seen_failing(site, victim)


def _homes(site: Site) -> dict[str, str]:
    """For each server a prompt that goes there."""
    homes: dict[str, str] = {}
    for number in range(500, 600):
        homes.setdefault(site.ask(prompt(number)).server, prompt(number))
        if len(homes) == len(site.servers):
            break
    return homes


def _seen_failing(site: Site, victim: Vllm) -> Check:
    total = site.picker.total
    counts = {kind: total("llm_d_epp_endpoint_failures_total", endpoint_name=victim.name, kind=kind) for kind in KINDS}
    told = ", ".join(f"{kind} {count:.0f}" for kind, count in counts.items() if count)
    cooling = total("llm_d_epp_endpoint_cooling", endpoint_name=victim.name)
    return Check(f"the picker's metrics: endpoint_cooling {cooling:.0f}; endpoint_failures_total: {told}", cooling == 1)


def _trying(site: Site, homes: dict[str, str], victim: Vllm) -> Iterator[_Tried]:
    began = time.monotonic()
    while time.monotonic() - began < WATCHED_S:
        for home, text in homes.items():
            status, server, decision_id = _outcome(site, text)
            notes = site.picker.decision(decision_id)["notes"] if decision_id else []
            probe = any(note.startswith("probe") for note in notes)
            yield _Tried(time.monotonic() - began, status, server, home == victim.name, probe)


def _outcome(site: Site, text: str) -> tuple[int, str, str]:
    """Status, who answered, and the decision's id."""
    try:
        answer = site.ask(text, max_tokens=1)
    except openai.APIStatusError as error:
        return error.status_code, "", error.response.headers.get("x-epp-decision-id", "")
    return 200, answer.server, answer.decision_id


def _times(tried: list[_Tried]) -> str:
    return ", ".join(f"{one.at_s:.1f} s" for one in tried) or "-"
