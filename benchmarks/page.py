"""docs/performance.md from benchmarks/results: `python -m benchmarks.page` writes it, a test holds it to them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
Results = dict[str, Any]  # JSON of each file, by its name


@dataclass(frozen=True, slots=True)
class Row:
    """A figure, how much it may be, and the benchmark that says it."""

    what: str
    unit: str
    wanted: float
    reached: float | None
    made_by: str

    def line(self) -> str:
        wanted = f"≤ {self.wanted:.4g}{self.unit}"
        run = f"`make bench ONLY={self.made_by}`"
        if self.reached is None:
            return f"| {self.what} | {wanted} | not measured | | | {run} |"
        share = self.reached / self.wanted
        verdict = "met" if share <= 1 else f"**missed**, {share - 1:.0%} over"
        return f"| {self.what} | {wanted} | {self.reached:.4g}{self.unit} | {share:.2f} | {verdict} | {run} |"


def load(folder: Path = RESULTS) -> Results:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def at(results: Results, *path: str) -> Any:  # whatever the file has there
    """None where a result or a part of it is missing."""
    found: Any = results
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def over(results: Results, file: str, above: str, below: str) -> float | None:
    one, other = at(results, file, "here", above), at(results, file, "here", below)
    return one / other if one and other else None


SCALED = "{} µs where a bare grpc.aio echo costs 0.53 ms"


def scale(results: Results) -> float:
    """This machine's echo ÷ 0.53 ms: times are wanted for a machine on which it costs that."""
    rounds = at(results, "server", "rounds") or []
    echoes = sorted(one["echo"]["cpu_ms_per_request"] for one in rounds)
    return echoes[len(echoes) // 2] / 0.53 if echoes else 1.0


def _rows(results: Results) -> Iterator[Row]:
    echo = at(results, "server", "cpu_ratio_to_echo")
    yield Row("CPU per request, complete picker, beside a bare grpc.aio echo, plaintext", " ×", 0.30, echo, "server")
    for case, found in (at(results, "server_cases", "cases") or {}).items():
        yield Row(f"the same on recorded messages, {case}", " ×", 0.30, found["ratio"], "server_cases")
    for kind in ("plaintext", "tls"):
        for rate, told in (("full", "as many as 64 connections take"), ("calm", "300 requests/s")):
            ratio = at(results, "envoy", "cases", f"{kind} {rate}", "ratio")
            yield Row(f"the same behind Envoy, beside Envoy's own CPU, {kind}, {told}", " ×", 0.4, ratio, "envoy")
    many = over(results, "exchange", "four_messages_us_1000", "four_messages_us_10")
    yield Row("1,000 endpoints instead of 10", " ×", 1.6, many, "exchange")
    shared = over(results, "exchange", "shared_prefix_us_1000", "shared_prefix_us_10")
    yield Row("the same, with a prefix that all of them hold", " ×", 1.6, shared, "exchange")
    long, hashed = (at(results, "exchange", "here", key) for key in ("body_400k_us", "hash_400k_us"))
    here = scale(results)
    yield Row(f"a unique prompt of 400 KB ({SCALED.format(3000)})", " µs", 3000 * here, long, "exchange")
    yield Row(f"of which hashing ({SCALED.format(500)})", " µs", 500 * here, hashed, "exchange")
    for streams, wanted in ((20, 0.5), (100, 0.4), (300, 0.35)):
        runs = at(results, "transport", "through_envoy_tls", f"h2 {streams} streams")
        ratio = statistics.median(one["ratio"] for one in runs) if runs else None
        yield Row(f"a streamed piece, {streams} streams, beside Envoy's own CPU", " ×", wanted, ratio, "transport")
    yield from _scraping(results)
    alone = [
        row["decision_us"]
        for row in at(results, "decision", "rows") or ()
        if (row["endpoints"], row["prompt_bytes"], row["prompts"]) == (100, 2048, "unique")
    ]
    what = f"decision alone, 100 endpoints, 2 KB ({SCALED.format(60)})"
    yield Row(what, " µs", 60 * here, alone[0] if alone else None, "decision")
    queued = at(results, "queue", "worst_dispatch_us")
    budget = at(results, "queue", "budget_us") or 25 * here
    yield Row(
        f"a dispatch from a queue of 100,000 in 1,000 flows ({SCALED.format(25)})", " µs", budget, queued, "queue"
    )
    predicted = at(results, "latency", "endpoints", "100", "predict_us")
    allowed = at(results, "latency", "allowed_us_at_100") or 30 * here
    yield Row(f"latency prediction, 100 endpoints ({SCALED.format(30)})", " µs", allowed, predicted, "latency")
    memory = at(results, "exchange", "resident_mb") or {}
    ends = [memory.get(key) for key in ("100000", "300000")]
    grown = (ends[1] / ends[0] - 1) * 100 if all(ends) else None
    yield Row("resident memory gained from request 100,000 to 300,000", " %", 2, grown, "exchange")


def _scraping(results: Results) -> Iterator[Row]:
    idle = at(results, "scraping", "idle_100", "with") or {}
    yield Row("idle with 100 endpoints", " core", 0.03, idle.get("cores"), "scraping")
    yield Row("its scrapes a second and endpoint", "", 1, idle.get("scrapes_per_s_and_endpoint"), "scraping")
    used = at(results, "scraping", "cases", "100 endpoints", "scraping_cores")
    yield Row("scraping 100 endpoints in use at 500 requests/s", " core", 0.1, used, "scraping")


def _shares(results: Results) -> Iterator[str]:
    """What the share wanted would be in µs, beside what is spent."""
    for rate, told in (("full", "With 64 connections busy"), ("calm", "At 300 requests/s")):
        one = at(results, "envoy", "cases", f"plaintext {rate}")
        if one:
            yield (
                f"* {told}, plaintext, Envoy takes {one['envoy_us']:.0f} µs a request, so that 0.4 × are\n  "
                f"{0.4 * one['envoy_us']:.0f} µs for everything; "
                f"the picker takes {one['picker_us']:.0f} µs{_kernel(one)}.\n"
            )


def _kernel(case: Results) -> str:
    return f", {case['picker_kernel_us']:.0f} of them in the kernel" if "picker_kernel_us" in case else ""


def _apart(results: Results) -> str:
    close, apart = (at(results, "exchange", "here", key) for key in ("recorded_us_10", "apart_us"))
    if not close or not apart:
        return ""
    return (
        f"* The six messages that Envoy sends for a request take {close:.0f} µs back to back, {apart:.0f} µs when\n"
        "  3 ms of sleep lie between two requests: code and objects are gone from the caches by then.\n"
    )


def _in_python(results: Results) -> str:
    here, there = (at(results, "exchange", run, "four_messages_us_10") for run in ("here", "in_python"))
    if not here or not there:
        return ""
    return (
        f"* A request's four messages without a transport take {here:.0f} µs; the same sources not compiled\n"
        f"  {there:.0f} µs ([0028](adr/0028-compiled-by-mypyc.md)).\n"
    )


def _picks(results: Results) -> Iterator[str]:
    yield "| | scrapes/s | scraping | CPU a scrape | p50, p99 of a pick with it | without |"
    yield "|---|---|---|---|---|---|"
    for label, one in (at(results, "scraping", "cases") or {}).items():
        with_it, without = one["with"], one["without"]
        yield (
            f"| {label} | {with_it['scrapes_per_s']:g} | {one['scraping_cores']:g} core | {one['us_per_scrape']:g} µs "
            f"| {with_it['p50_ms']:g}, {with_it['p99_ms']:g} ms | {without['p50_ms']:g}, {without['p99_ms']:g} ms |"
        )


def _waits(results: Results) -> Iterator[str]:
    yield "| 1,000 endpoints | 99 % of moments wait less than | 99.9 % |"
    yield "|---|---|---|"
    for label, one in (at(results, "scraping_turns", "cases") or {}).items():
        yield f"| {label} | {one['p99_us']:g} µs | {one['p999_us']:g} µs |"


def _published() -> Iterator[str]:
    yield "| what | theirs | where they say so |"
    yield "|---|---|---|"
    for row in PUBLISHED:
        yield f"| {' | '.join(row)} |"


def _peers(results: Results) -> Iterator[str]:
    yield "| | p50 | p99 | CPU per request, all its processes |"
    yield "|---|---|---|---|"
    for label, one in (at(results, "peers", "rows") or {}).items():
        name = " ".join(filter(None, (label, at(results, "peers", "versions", label))))
        cpu = f"{one['cpu_us']:g} µs" if "cpu_us" in one else ""
        if "picker_us" in one:
            cpu += f" ({one['envoy_us']:g} Envoy, {one['picker_us']:g} picker)"
        yield f"| {name} | {one['p50_ms']:g} ms | {one['p99_ms']:g} ms | {cpu} |"


def _machines(results: Results) -> Iterator[str]:
    for name in ("server", "envoy", "exchange", "transport", "scraping", "scraping_turns", "decision", "peers"):
        one = results.get(name)
        if one:
            cpu, cores = one["machine"]["cpu"], one["machine"]["cores"]
            link = f"[{name}.json](../benchmarks/results/{name}.json)"
            yield f"* {link}: {one['made']}, {cpu}, {cores} cores. {one['what']}."


GUIDE = "llm-d/llm-d-router, docs/operations.md"
PUBLISHED = (
    ("idle with 100 endpoints read every 50 ms", "about 7.5 cores", f"{GUIDE} (later releases read more seldom)"),
    ("100,000 tokens in, 1,000 out, 5 requests/s, 100 endpoints", "1.2 to 3.8 cores", f"{GUIDE}, image 0.9.0"),
    ("the same at 98.7 requests/s", "35 to 46.5 cores", f"{GUIDE}, image 0.9.0"),
    ("of that, scheduling a request, p50", "0.10 to 0.20 ms", f"{GUIDE}, image 0.9.0"),
    ("share of CPU: kernel and network, JSON, garbage collection", "19, 19, 13 %", "llm-d/llm-d-router, issue 1906"),
    ("220 KB prompts, 20 at once, time to the first byte, p50", "153 ms", "llm-d/llm-d-router, issue 1109"),
)
"""What is published of the llm-d router, how much, and where."""

TEXT = """\
# Performance

Made by `python -m benchmarks.page` from [benchmarks/results](../benchmarks/results); do not edit it by hand.
`make bench` measures everything anew. The machine has two cores that other work shared while most of this was measured:
trust ratios taken within one run before any time.

## Wanted and reached

| what | wanted | reached | of wanted | | measured by |
|---|---|---|---|---|---|
{rows}

Times are wanted on a machine where a bare grpc.aio echo costs 0.53 ms of CPU; here they are scaled by what it cost
(queue and latency: in their own run, the others: in that of [server.json](../benchmarks/results/server.json)).

## Several processes

`make bench ONLY=workers`; CPU a request in µs, and requests a second, on two cores that the load generator shares.
No figure was set. Once the core of the decider is full, more edges add nothing.

| | edges | decider | all | requests/s |
|---|---|---|---|---|
{workers}

## Where the time goes

{python}{apart}{envoy}
Behind Envoy each request is four messages each way. At 300 requests/s each of them wakes the picker on its own, with
cold caches, and Envoy as well. Half of what is left would have to go; that takes a core without Python's objects for
the whole exchange, the arithmetic of the scorers (a third of it) in one step, or fewer messages by Envoy. Of a request,
[decision.json](../benchmarks/results/decision.json) tells what the decision takes and what its whole life does without
a transport; [transport.json](../benchmarks/results/transport.json) what the HTTP/2 layer alone takes, a few µs a
message.

## Scraping, and whether requests feel it

Pages of 55 KB, requests at 500/s on two connections, each open so long that every endpoint is in use.
[0022](adr/0022-scraping-stays-on-the-event-loop.md) tells what follows from it.

{picks}

What a request may have to wait for, measured apart in CPU time: the rest of the turn of the event loop it falls into.

{waits}

## Beside the Go picker

Published figures of the llm-d router, of other machines and other loads; none was measured here.

{published}

## Beside proxies that pip installs

Another kind of thing: vllm-router and sglang-router are proxies in Rust that all traffic goes through; here Envoy is
the proxy and asks the picker. So the rows compare the whole way: the same simulated engines, 100 requests/s, each row
with its defaults save for the cache-aware policy. They are no endpoint pickers for a gateway, and have no plug-ins in
Python. Nearly all of the latency is the engine's; the last row is an engine alone with its share of the requests.

{peers}

## The runs

{machines}
"""


def _workers(results: Results) -> Iterator[str]:
    for name, found in (at(results, "workers") or {}).items():
        if isinstance(found, dict) and "all" in found:
            apart = [f"{found[part]:g}" if part in found else "" for part in ("edges", "decider")]
            yield f"| {name} | {' | '.join(apart)} | {found['all']:g} | {found['requests_per_s']:,.0f} |"


def page(results: Results) -> str:
    return TEXT.format(
        rows="\n".join(row.line() for row in _rows(results)),
        workers="\n".join(_workers(results)),
        python=_in_python(results),
        apart=_apart(results),
        envoy="".join(_shares(results)),
        picks="\n".join(_picks(results)),
        waits="\n".join(_waits(results)),
        published="\n".join(_published()),
        peers="\n".join(_peers(results)),
        machines="\n".join(_machines(results)),
    )


def main() -> None:
    PAGE.write_text(page(load()))
    print(PAGE)


if __name__ == "__main__":
    main()
