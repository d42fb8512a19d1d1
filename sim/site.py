"""Everything one engine serves over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import msgspec
from aiohttp import web

from sim import admin, promtext
from sim.api import Api, ApiError
from sim.bodies import Message, conversation, decode
from sim.engine import Engine
from sim.faults import Fault, Faults
from sim.inference import Inference
from sim.latencies import Latencies
from sim.listener import Listener
from sim.live import LiveEngine
from sim.openai_api import CHAT, COMPLETIONS
from sim.other_apis import MESSAGES, RESPONSES
from sim.settings import ServerSettings
from sim.text import TOKEN_BYTES

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_APIS = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETIONS,
    "/v1/messages": MESSAGES,
    "/v1/responses": RESPONSES,
}
_MAX_BODY_BYTES = 64 << 20
_MOST_LORA_SAMPLES = 16


class _LoraModule(msgspec.Struct):
    lora_name: str
    lora_path: str = ""


class _Tokenize(msgspec.Struct):
    prompt: str = ""
    messages: list[Message] = []


class Site:
    """Owns what the routes of one engine share. Needs a running event loop."""

    def __init__(self, settings: ServerSettings, listener: Listener, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._listener = listener
        self._pod = environ.get("POD_NAME", "")
        self._namespace = environ.get("POD_NAMESPACE", "")
        self._started = int(time.time())
        self._adapters = dict(settings.lora_modules)
        self._loras_seen: dict[tuple[str, str], float] = {}
        self._faults = Faults(settings.failure_rate, settings.failure_types)
        self._fault_ends: asyncio.TimerHandle | None = None
        latencies = Latencies(settings.max_model_len)
        self._live = LiveEngine(Engine(settings.engine), latencies, asyncio.get_running_loop())
        self._inference = Inference(settings, self._live, self._faults, self._adapters)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[_errors])
        for path, api in _APIS.items():
            app.router.add_post(path, partial(self._infer, api))
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/load_lora_adapter", self._load_lora)
        app.router.add_post("/v1/unload_lora_adapter", self._unload_lora)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/admin/config", self._config)
        app.router.add_post("/admin/config", self._change_config)
        return app

    async def _infer(self, api: Api, request: web.Request) -> web.StreamResponse:
        return await self._inference.answer(api, request, self._pod_headers())

    def _pod_headers(self) -> Mapping[str, str]:
        if not self._pod:
            return {}
        headers = {"x-inference-pod": self._pod, "x-inference-port": str(self._listener.port)}
        return headers | ({"x-inference-namespace": self._namespace} if self._namespace else {})

    async def _models(self, _request: web.Request) -> web.Response:
        parent = self._settings.names[0]
        models = [self._model(name, self._settings.model, None) for name in self._settings.names]
        models += [self._model(name, path or name, parent) for name, path in self._adapters.items()]
        return _json({"object": "list", "data": models})

    def _model(self, name: str, root: str, parent: str | None) -> Mapping[str, object]:
        return {
            "id": name,
            "object": "model",
            "created": self._started,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": self._settings.max_model_len if parent is None else None,
        }

    async def _load_lora(self, request: web.Request) -> web.Response:
        module = decode(await request.read(), _LoraModule)
        self._adapters[module.lora_name] = module.lora_path
        return web.Response()

    async def _unload_lora(self, request: web.Request) -> web.Response:
        self._adapters.pop(decode(await request.read(), _LoraModule).lora_name, None)
        return web.Response()

    async def _tokenize(self, request: web.Request) -> web.Response:
        asked = decode(await request.read(), _Tokenize)
        text = conversation(asked.messages) if asked.messages else asked.prompt.encode()
        starts = range(0, len(text), TOKEN_BYTES)
        tokens = [int.from_bytes(text[start : start + TOKEN_BYTES], "little") for start in starts]
        length = self._settings.max_model_len
        return _json({"count": len(tokens), "max_model_len": length, "tokens": tokens, "token_strs": None})

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, _request: web.Request) -> web.Response:
        load, engine = self._live.load(), self._live.engine
        lines = list(
            promtext.page(self._settings.names[0], engine.settings, load, engine.counters, self._live.latencies)
        )
        if self._adapters:
            self._see_loras(",".join(sorted(load.running_loras)), ",".join(sorted(load.waiting_loras)))
            lines += promtext.loras(engine.settings, self._loras_seen)
        body = "\n".join([*lines, ""]).encode()
        return web.Response(body=body, headers={"Content-Type": promtext.CONTENT_TYPE})

    def _see_loras(self, running: str, waiting: str) -> None:
        self._loras_seen.pop((running, waiting), None)
        self._loras_seen[running, waiting] = time.time()
        if len(self._loras_seen) > _MOST_LORA_SAMPLES:
            del self._loras_seen[next(iter(self._loras_seen))]

    async def _config(self, _request: web.Request) -> web.Response:
        return _json(admin.current(self._live.engine.speed, self._faults))

    async def _change_config(self, request: web.Request) -> web.StreamResponse:
        change = admin.decode(await request.read())
        fault_s = admin.fault_s(change)
        self._live.engine.speed = admin.new_speed(change, self._live.engine.speed)
        admin.change_faults(change, self._faults)
        if change.fault is Fault.REFUSE:
            return await self._refuse(request, fault_s or 0.0)
        if change.fault is not None:
            self._end_fault_after(fault_s)
        return _json(admin.current(self._live.engine.speed, self._faults))

    async def _refuse(self, request: web.Request, for_s: float) -> web.StreamResponse:
        """Answer first: this connection will be cut like all others."""
        self._faults.fault = Fault.NONE
        response = _json(admin.current(self._live.engine.speed, self._faults))
        await response.prepare(request)
        await response.write_eof()
        self._listener.refuse(for_s)
        return response

    def _end_fault_after(self, duration_s: float | None) -> None:
        if self._fault_ends is not None:
            self._fault_ends.cancel()
        if duration_s is not None:
            loop = asyncio.get_running_loop()
            self._fault_ends = loop.call_later(duration_s, setattr, self._faults, "fault", Fault.NONE)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return _json(error.body(), error.status)


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
