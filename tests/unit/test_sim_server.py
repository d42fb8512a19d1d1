import asyncio
import json
import signal
import sys
from dataclasses import replace

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sim.server import serving
from sim.text import answer
from tests.sim_kit import CHAT, FAST, TINY, Session, endless, metrics, origin, post, stream, until, with_server


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
