import asyncio
import json
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import aiohttp
import openai
import pytest
import yarl
from prometheus_client.parser import text_string_to_metric_families

from sim.engine import Engine
from sim.server import serving
from sim.settings import ServerSettings
from sim.text import answer, job, render
from sim.types import EngineSettings, Speed

FIXTURES = Path(__file__).parent.parent / "fixtures"
FAST = Speed(inter_token_s=0.001, prefill_overhead_s=0.001, prefill_s_per_token=0.0)
TINY = ServerSettings(model="tiny", port=0, engine=EngineSettings(speed=FAST))
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "tell me of the sea, please, and at length"}]}

Session = aiohttp.ClientSession


def with_server(settings: ServerSettings, use: Callable[[Session], Awaitable[None]]) -> None:
    """Run `use` with a client of a server on a free port."""

    async def run() -> None:
        async with asyncio.timeout(20), serving(settings) as [address], Session(f"http://{address}") as client:
            await use(client)

    asyncio.run(run())


async def post(client: Session, path: str, body: object, **headers: str) -> tuple[int, Mapping, Mapping]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.post(path, json=body, headers=named) as response:
        return response.status, await response.json(), response.headers


async def origin(client: Session) -> yarl.URL:
    """Where the server is."""
    async with client.get("/health") as response:
        return response.url.origin()


def openai_client(url: yarl.URL) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=str(url / "v1"), api_key="x")


async def metrics(client: Session) -> dict[str, float]:
    """Samples without labels other than engine and model_name, by name."""
    async with client.get("/metrics") as response:
        families = list(text_string_to_metric_families(await response.text()))
    return {s.name: s.value for f in families for s in f.samples if set(s.labels) == {"engine", "model_name"}}


async def stream(client: Session, path: str, body: Mapping) -> list[str]:
    """The server-sent events of a streamed request."""
    async with client.post(path, json={**body, "stream": True}) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        return (await response.text()).removesuffix("\n\n").split("\n\n")


def recorded(name: str) -> str:
    return (FIXTURES / "bodies" / name).read_text()


def test_the_openai_client_streams_a_chat_token_by_token() -> None:
    async def use(client: Session) -> None:
        async with openai_client(await origin(client)) as api:
            options = {"stream": True, "stream_options": {"include_usage": True}}
            chunks = [c async for c in await api.chat.completions.create(**CHAT, max_tokens=12, **options)]
            whole = await api.chat.completions.create(**CHAT, max_tokens=12)
        assert chunks[0].choices[0].delta.role == "assistant"
        pieces = [c.choices[0].delta.content for c in chunks[1:-1]]
        assert len(pieces) == 12
        assert "".join(pieces) == whole.choices[0].message.content
        assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * 12 + ["length"]
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 12

    with_server(TINY, use)


def test_the_openai_client_reads_every_other_api() -> None:
    async def use(client: Session) -> None:
        async with openai_client(await origin(client)) as api:
            completion = await api.completions.create(model="tiny", prompt=["a", "b"], max_tokens=3)
            assert [c.index for c in completion.choices] == [0, 1]
            async with api.responses.stream(model="tiny", input="hi", max_output_tokens=5) as events:
                texts = [e.delta async for e in events if e.type == "response.output_text.delta"]
            whole = await api.responses.create(model="tiny", input="hi", max_output_tokens=5)
            assert "".join(texts) == whole.output_text
            assert [model.id async for model in api.models.list()] == ["tiny"]

    with_server(TINY, use)


@pytest.mark.parametrize(
    ("path", "body", "recording"),
    [
        ("/v1/messages", {**CHAT, "max_tokens": 4}, "anthropic-stream.sse"),
        ("/v1/responses", {"model": "tiny", "input": "hi", "max_output_tokens": 4}, "responses-stream.sse"),
    ],
    ids=["messages", "responses"],
)
def test_streams_have_the_events_that_vllm_sends(path: str, body: Mapping, recording: str) -> None:
    def kinds(events: list[str]) -> list[str]:
        names = [re.match("event: (.*)", event)[1] for event in events]
        return [name for i, name in enumerate(names) if i == 0 or name != names[i - 1]]

    async def use(client: Session) -> None:
        events = await stream(client, path, body)
        assert kinds(events) == kinds(recorded(recording).strip().split("\n\n"))
        assert sum("delta" in event.split("\n")[0] for event in events) >= 4

    with_server(TINY, use)


def test_chunks_of_a_chat_look_like_vllms() -> None:
    def shape(event: str) -> set[str]:
        chunk = json.loads(event.removeprefix("data: "))
        return set(chunk) | {f"choices.{key}" for choice in chunk["choices"] for key in choice}

    async def use(client: Session) -> None:
        body = {**CHAT, "max_tokens": 2, "stream_options": {"include_usage": True}}
        ours = await stream(client, "/v1/chat/completions", body)
        theirs = recorded("chat-stream.sse").strip().split("\n\n")
        for mine, other in [(ours[0], theirs[0]), (ours[1], theirs[1]), (ours[-2], theirs[-2])]:
            assert shape(mine) <= shape(other)
        assert ours[-1] == theirs[-1] == "data: [DONE]"

    with_server(TINY, use)


def test_a_whole_completion_has_vllms_keys() -> None:
    async def use(client: Session) -> None:
        _, body, _ = await post(client, "/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 3})
        real = json.loads(recorded("completion.json"))
        assert set(body) <= set(real)
        assert set(body["usage"]) <= set(real["usage"])
        assert set(body["choices"][0]) <= set(real["choices"][0])

    with_server(TINY, use)


@pytest.mark.parametrize(("form", "recording"), [("JSON", ""), ("TEXT", "-text")], ids=["json", "text"])
def test_the_load_report_is_vllms(form: str, recording: str) -> None:
    async def use(client: Session) -> None:
        body = {"model": "tiny", "prompt": "a", "max_tokens": 1}
        _, _, headers = await post(client, "/v1/completions", body, endpoint_load_metrics_format=form)
        line = f"endpoint-load-metrics: {headers['endpoint-load-metrics']}"
        assert line in recorded(f"completion-load-report{recording}.headers").splitlines()

    with_server(TINY, use)


def test_the_load_report_is_missing_where_vllm_sends_none() -> None:
    async def use(client: Session) -> None:
        asked = {"endpoint-load-metrics-format": "JSON"}
        async with client.post("/v1/chat/completions", json={**CHAT, "stream": True}, headers=asked) as streamed:
            assert "endpoint-load-metrics" not in streamed.headers
        _, _, headers = await post(client, "/v1/responses", {"model": "tiny", "input": "a"}, **asked)
        assert "endpoint-load-metrics" not in headers

    with_server(TINY, use)


def test_an_unknown_model_gets_vllms_404() -> None:
    async def use(client: Session) -> None:
        status, body, _ = await post(client, "/v1/completions", {"model": "nope", "prompt": "a"})
        assert (status, body) == (404, json.loads(recorded("error-404.json")))

    with_server(TINY, use)


def test_the_model_list_looks_like_vllms() -> None:
    async def use(client: Session) -> None:
        async with client.get("/v1/models") as response:
            ours = await response.json()
        theirs = json.loads((FIXTURES / "sim" / "vllm-0.32.0-models.json").read_text())
        assert set(ours["data"][0]) == set(theirs["data"][0]) - {"permission"}
        assert ours["data"][0]["id"] == "tiny"

    with_server(TINY, use)


def test_every_metric_is_one_of_vllms_with_its_type_and_labels() -> None:
    def shapes(page: str) -> dict[str, tuple]:
        families = text_string_to_metric_families(page)
        return {f.name: (f.type, {(s.name, *sorted(s.labels)) for s in f.samples}) for f in families}

    async def use(client: Session) -> None:
        await post(client, "/v1/chat/completions", CHAT)
        async with client.get("/metrics") as response:
            ours = shapes(await response.text())
        real = shapes((FIXTURES / "metrics" / "vllm-0.32.0-busy.txt").read_text())
        config, real_config = ours.pop("vllm:cache_config_info"), real["vllm:cache_config_info"]
        assert len(ours) > 15
        assert {name: kind for name, (kind, _) in ours.items()} == {name: real[name][0] for name in ours}
        assert all(samples <= real[name][1] for name, (_, samples) in ours.items())
        assert {label for s in config[1] for label in s} <= {label for s in real_config[1] for label in s}

    with_server(TINY, use)


def test_a_repeated_prompt_is_found_in_the_cache_and_counted() -> None:
    async def use(client: Session) -> None:
        body = {**CHAT, "messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 2}
        cached = []
        for _ in range(2):
            _, answered, _ = await post(client, "/v1/chat/completions", body)
            cached.append(answered["usage"]["prompt_tokens_details"]["cached_tokens"])
        page = await metrics(client)
        assert cached == [0, 96]
        assert page["vllm:prefix_cache_hits_total"] == 96
        assert page["vllm:prefix_cache_queries_total"] == 2 * answered["usage"]["prompt_tokens"]

    with_server(TINY, use)


def test_the_real_face_and_the_virtual_one_count_the_same() -> None:
    questions = ["where is the sea " * 5, "where is the sea " * 5 + "and why", "what else"]

    async def use(client: Session) -> None:
        engine, now = Engine(TINY.engine), 0.0
        for text in questions:
            messages = [{"role": "user", "content": text}]
            await post(client, "/v1/chat/completions", {"model": "tiny", "messages": messages, "max_tokens": 20})
            prompt = render([("user", text.encode())])
            engine.submit(now, job(prompt, answer(prompt, 20), TINY.engine.block_size))
            now = engine.wake_at + 10
            engine.advance(now)
        page, counters = await metrics(client), engine.counters
        assert counters.prefix_hits > 0
        assert page["vllm:prefix_cache_hits_total"] == counters.prefix_hits
        assert page["vllm:prompt_tokens_total"] == counters.prompt_tokens
        assert page["vllm:generation_tokens_total"] == counters.generation_tokens
        assert page["vllm:e2e_request_latency_seconds_count"] == counters.finished

    with_server(TINY, use)


def test_echo_gives_back_the_last_message() -> None:
    async def use(client: Session) -> None:
        said = 'Grüße, "quoted"\n'
        body = {"model": "tiny", "messages": [{"role": "user", "content": said}]}
        _, whole, _ = await post(client, "/v1/chat/completions", body)
        chunks = [json.loads(e[6:]) for e in (await stream(client, "/v1/chat/completions", body))[1:-1]]
        assert whole["choices"][0]["message"]["content"] == said
        assert "".join(c["choices"][0]["delta"]["content"] for c in chunks) == said
        assert whole["choices"][0]["finish_reason"] == "stop"

    with_server(replace(TINY, echo=True), use)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/chat/completions", {"model": "tiny", "messages": []}, "messages must not be empty"),
        ("/v1/chat/completions", {"model": 3}, "cannot be read"),
        ("/v1/chat/completions", {**CHAT, "max_tokens": 0}, "must be at least 1"),
        ("/v1/chat/completions", {**CHAT, "max_tokens": 1024}, "maximum context length is 1024"),
        ("/v1/completions", {"model": "tiny", "prompt": []}, "prompt must not be empty"),
        ("/v1/completions", {"model": "tiny", "prompt": [1, "a"]}, "must not mix"),
        ("/v1/completions", {"model": "tiny", "prompt": [-1]}, "token ids must lie"),
        ("/v1/messages", CHAT, "max_tokens is required"),
        ("/v1/responses", {"model": "tiny"}, "input must not be empty"),
    ],
    ids=["empty", "type", "none", "long", "no-prompt", "mixed", "ids", "no-limit", "no-input"],
)
def test_a_bad_request_is_told_what_is_wrong(path: str, body: Mapping, message: str) -> None:
    async def use(client: Session) -> None:
        status, answered, _ = await post(client, path, body)
        assert status == 400
        assert message in answered["error"]["message"]

    with_server(TINY, use)


def test_requests_beyond_the_queue_are_refused() -> None:
    async def use(client: Session) -> None:
        status, body, _ = await post(client, "/v1/chat/completions", CHAT)
        assert (status, body["error"]["type"]) == (429, "RateLimitError")

    with_server(replace(TINY, max_waiting=0), use)


def test_adapters_come_and_go() -> None:
    async def use(client: Session) -> None:
        ask = {"model": "fine", "prompt": "a", "max_tokens": 2}
        before, _, _ = await post(client, "/v1/completions", ask)
        await client.post("/v1/load_lora_adapter", json={"lora_name": "fine", "lora_path": "/fine"})
        during, body, _ = await post(client, "/v1/completions", ask)
        async with client.get("/v1/models") as response:
            models = [(m["id"], m["root"], m["parent"]) for m in (await response.json())["data"]]
        await client.post("/v1/unload_lora_adapter", json={"lora_name": "fine"})
        after, _, _ = await post(client, "/v1/completions", ask)
        assert (before, during, body["model"], after) == (404, 200, "fine", 404)
        assert models == [("tiny", "tiny", None), ("fine", "/fine", "tiny")]

    with_server(TINY, use)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it is so; the server's own time limit ends a vain wait."""
    while not await true():
        pass


def endless(model: str = "tiny") -> Mapping:
    return {"model": model, "prompt": "a", "max_tokens": 900, "stream": True}


async def newest_loras(client: Session) -> tuple[str, str]:
    async with client.get("/metrics") as response:
        families = {f.name: f for f in text_string_to_metric_families(await response.text())}
    labels = max(families["vllm:lora_requests_info"].samples, key=lambda s: s.value).labels
    return labels["running_lora_adapters"], labels["waiting_lora_adapters"]


def test_metrics_name_running_and_waiting_adapters() -> None:
    async def use(client: Session) -> None:
        async def both() -> bool:
            return await newest_loras(client) == ("a", "b")

        async with client.post("/v1/completions", json=endless("a")):
            waiting = asyncio.ensure_future(client.post("/v1/completions", json=endless("b")))
            await until(both)
            waiting.cancel()

    with_server(replace(TINY, lora_modules={"a": "", "b": ""}), use)


def test_a_client_that_hangs_up_frees_the_engine() -> None:
    async def use(client: Session) -> None:
        async def idle() -> bool:
            return (await metrics(client))["vllm:num_requests_running"] == 0

        async with client.post("/v1/completions", json=endless()) as response:
            await response.content.readany()
            assert (await metrics(client))["vllm:num_requests_running"] == 1
            response.close()
        await until(idle)
        page = await metrics(client)
        assert page["vllm:kv_cache_usage_perc"] == 0
        assert page["vllm:generation_tokens_total"] < 900

    with_server(TINY, use)


def test_fifty_streams_at_once_all_get_their_own_tokens() -> None:
    async def use(client: Session) -> None:
        async def texts(number: int) -> tuple[list[str], str]:
            body = {"model": "tiny", "prompt": f"{number:04}", "max_tokens": 20}
            events = await stream(client, "/v1/completions", body)
            return [json.loads(e[6:])["choices"][0]["text"] for e in events[:-1]], f"{number:04}"

        for pieces, prompt in await asyncio.gather(*[texts(i) for i in range(50)]):
            assert len(pieces) == 20
            assert "".join(pieces) == answer(prompt.encode(), 20).decode()

    with_server(TINY, use)


def test_two_answers_of_one_stream_are_told_apart() -> None:
    async def use(client: Session) -> None:
        body = {"model": "tiny", "prompt": ["a", "b"], "n": 2, "max_tokens": 3}
        events = [json.loads(e[6:]) for e in (await stream(client, "/v1/completions", body))[:-1]]
        texts = ["".join([e["choices"][0]["text"] for e in events if e["choices"][0]["index"] == i]) for i in range(4)]
        assert texts == [answer(p, 3).decode() for p in (b"a", b"a", b"b", b"b")]

    with_server(TINY, use)


def test_a_failed_engine_answers_500_until_it_is_mended() -> None:
    async def use(client: Session) -> None:
        statuses = []
        for fault in ("error", "none"):
            await post(client, "/admin/config", {"fault": fault})
            statuses.append((await post(client, "/v1/chat/completions", CHAT))[0])
        assert statuses == [500, 200]

    with_server(TINY, use)


def test_a_hanging_engine_never_answers_but_shows_metrics() -> None:
    async def use(client: Session) -> None:
        await post(client, "/admin/config", {"fault": "hang", "fault-duration": "1h"})
        asked = asyncio.ensure_future(post(client, "/v1/chat/completions", CHAT))
        assert (await metrics(client))["vllm:num_requests_running"] == 0
        assert not asked.done()
        asked.cancel()

    with_server(TINY, use)


def test_an_engine_that_refuses_cuts_its_connections_and_comes_back() -> None:
    async def use(client: Session) -> None:
        async def reachable() -> bool:
            try:
                return (await client.get("/health")).ok
            except aiohttp.ClientConnectionError:
                return False

        async def unreachable() -> bool:
            return not await reachable()

        async with client.post("/v1/completions", json=endless()) as streaming:
            await post(client, "/admin/config", {"fault": "refuse", "fault-duration": "100ms"})
            with pytest.raises(aiohttp.ClientError):
                await streaming.read()
        await until(unreachable)
        await until(reachable)

    with_server(replace(TINY, engine=replace(TINY.engine, speed=replace(FAST, inter_token_s=1.0))), use)


def test_latencies_change_at_run_time() -> None:
    async def use(client: Session) -> None:
        _, changed, _ = await post(client, "/admin/config", {"inter-token-latency": "2ms"})
        async with client.get("/admin/config") as response:
            assert await response.json() == changed
        assert changed["inter-token-latency"] == "2000.000us"

    with_server(TINY, use)


def test_a_request_may_ask_for_an_error_of_its_own() -> None:
    async def use(client: Session) -> None:
        status, body, _ = await post(client, "/v1/chat/completions", CHAT, X_Return_Error="429")
        assert (status, body["error"]["code"]) == (429, 429)

    with_server(TINY, use)


def test_answers_name_the_pod_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAME", "pod-1")
    monkeypatch.setenv("POD_NAMESPACE", "ns")

    async def use(client: Session) -> None:
        _, _, headers = await post(client, "/v1/chat/completions", CHAT)
        pod = [headers[f"x-inference-{name}"] for name in ("pod", "port", "namespace")]
        assert pod == ["pod-1", str((await origin(client)).port), "ns"]

    with_server(TINY, use)


def test_a_connection_is_kept() -> None:
    async def use(client: Session) -> None:
        opened, trace = [], aiohttp.TraceConfig()

        async def count(*args: object) -> None:
            opened.append(args)

        trace.on_connection_create_end.append(count)
        async with Session(await origin(client), trace_configs=[trace]) as counted:
            for path in ("/v1/completions", "/v1/chat/completions", "/v1/messages"):
                await stream(counted, path, {**CHAT, "prompt": "a", "max_tokens": 2})
        assert len(opened) == 1

    with_server(TINY, use)


def test_tokenize_counts_four_bytes_a_token() -> None:
    async def use(client: Session) -> None:
        _, body, _ = await post(client, "/tokenize", {"prompt": "abcde"})
        assert body == {"count": 2, "max_model_len": 1024, "tokens": [0x64636261, 0x65], "token_strs": None}

    with_server(TINY, use)


def test_each_engine_of_several_has_its_own_cache() -> None:
    async def run() -> None:
        async with serving(replace(TINY, engines=2)) as addresses:
            cached = []
            for address in (*addresses, addresses[0]):
                async with Session(f"http://{address}") as client:
                    body = {"model": "tiny", "prompt": "x" * 400, "max_tokens": 1}
                    _, answered, _ = await post(client, "/v1/completions", body)
                    cached.append(answered["usage"]["prompt_tokens_details"]["cached_tokens"])
            assert cached == [0, 0, 96]

    asyncio.run(run())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_the_program_ends_cleanly_on_a_signal_with_requests_open(number: signal.Signals) -> None:
    async def run() -> None:
        command = [sys.executable, "-m", "sim.server", "--model", "tiny", "--port", "0"]
        server = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1)
        address = (await server.stdout.readline()).decode().split()[-1]
        async with Session(address) as client, client.post("/v1/completions", json=endless()) as response:
            await response.content.readany()
            server.send_signal(number)
            assert await server.communicate() == (b"", b"")
        assert server.returncode == 0

    asyncio.run(asyncio.wait_for(run(), 20))


def test_a_port_that_is_taken_is_named() -> None:
    async def use(client: Session) -> None:
        port = str((await origin(client)).port)
        command = [sys.executable, "-m", "sim.server", "--model", "tiny", "--port", port]
        server = await asyncio.create_subprocess_exec(*command, stderr=-1)
        _, told = await server.communicate()
        assert server.returncode == 1
        assert told.decode().startswith("cannot listen:")
        assert port in told.decode()

    with_server(TINY, use)
