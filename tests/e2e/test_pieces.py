"""What becomes of the pieces of streamed responses on their way through a real Envoy."""

from __future__ import annotations

from .chat import ask_all, completion, events
from .conftest import Proxied, Town
from .processes import Picker, settles

STREAMS, TOKENS = 10, 200


def pieces(picker: Picker, way: str) -> float:
    return picker.metric("llm_d_epp_response_pieces_total", way=way)


def test_nearly_all_pieces_of_streamed_responses_are_passed_on_unread(town: Town, proxied: Proxied) -> None:
    before = {way: pieces(town.picker, way) for way in ("wrapped", "read")}
    proxy = proxied(town.picker)
    sent = [completion(f"tale {n}", stream=True, max_tokens=TOKENS) for n in range(STREAMS)]
    replies = ask_all(proxy.port, sent)
    assert {(reply.status, reply.whole, events(reply)[-1]) for reply in replies} == {(200, True, b"[DONE]")}
    assert settles(0, lambda: town.picker.metric("llm_d_epp_request_running")) == 0
    wrapped, read = (pieces(town.picker, way) - before[way] for way in ("wrapped", "read"))
    # Envoy joins what comes together, so there are fewer pieces than tokens.
    assert wrapped > 10 * STREAMS
    assert wrapped / (wrapped + read) > 0.99
