import json
import re
from collections.abc import Mapping
from dataclasses import replace

import openai
import pytest
import yarl
from prometheus_client.parser import text_string_to_metric_families

from sim.engine import Engine
from sim.text import answer, job, render
from tests.sim_kit import CHAT, FIXTURES, TINY, Session, metrics, origin, post, stream, with_server


def recorded(name: str) -> str:
    return (FIXTURES / "bodies" / name).read_text()


def openai_client(url: yarl.URL) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=str(url / "v1"), api_key="x")


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


def test_a_request_without_a_model_means_the_only_one() -> None:
    async def use(client: Session) -> None:
        status, body, _ = await post(client, "/v1/completions", {"prompt": "a", "max_tokens": 1})
        assert (status, body["model"]) == (200, "tiny")

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
