"""`--response-phase none` before real Envoys: no response is harmed, and none is shown to the picker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .chat import ask, ask_all, completion, events
from .client import request
from .conftest import Proxied, Town
from .processes import endpoints_file, picker

MODES: dict[str, dict[str, Any]] = {
    "full duplex": {},
    "full duplex, responses skipped": {
        "response_headers": "SKIP",
        "response_body": "NONE",
        "response_trailers": "SKIP",
    },
    "buffered": {"request_body": "BUFFERED", "response_body": "BUFFERED"},
    "no bodies": {"request_body": "NONE", "response_body": "NONE"},
}
REQUESTS = 300


@pytest.mark.parametrize("tls", [False, True], ids=["plaintext", "TLS"])
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
def test_every_response_comes_whole_and_the_picker_hears_of_none(
    mode: dict[str, Any], tls: bool, town: Town, proxied: Proxied, tmp_path: Path
) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [engine.address for engine in town.engines])
    flags = ("--response-phase=none", f"--secure-serving={str(tls).lower()}")
    with picker(tmp_path, endpoints, *flags) as chooser:
        proxy = proxied(chooser, threads=2, picker_tls=tls, **mode)
        asked = [completion(f"story {n}", stream=n % 2 == 0, max_tokens=1 + n % 7) for n in range(REQUESTS)]
        replies = ask_all(proxy.port, asked)
        counted = proxy.ext_proc()
        blamed = chooser.metric("llm_d_epp_endpoint_failures_total")
        went = chooser.metric("llm_d_epp_request_total")
    assert {(reply.status, reply.whole) for reply in replies} == {(200, True)}
    assert {(events(reply)[0] != b"", events(reply)[-1]) for reply in replies[::2]} == {(True, b"[DONE]")}
    assert all(b'"finish_reason"' in reply.body for reply in replies)
    assert (went, blamed, counted["streams_failed"], counted["spurious_msgs_received"]) == (REQUESTS, 0, 0, 0)
    # Headers, and the body with its end: no message of a response.
    assert counted["stream_msgs_sent"] <= 3 * REQUESTS


def test_requests_of_other_kinds_pass(which: str, town: Town, proxied: Proxied, tmp_path: Path) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [town.engines[0].address])
    with picker(tmp_path, endpoints, "--response-phase=none") as chooser:
        proxy = proxied(chooser)
        assert ask(proxy.port, request("GET", "/v1/models")).status == 200
        assert ask(proxy.port, completion(metadata={"padding": "x" * 3_000_000})).status == 200
        assert ask(proxy.port, completion(model="gone")).status == 404
        renamed = ask(proxy.port, completion("x", "x-llm-d-model-name-rewrite: tiny", model="alias"))
        assert (renamed.status, b'"model":"alias"' in renamed.body.replace(b": ", b":")) == (200, True)
