"""The llm-d router's own behaviour on the wire, case by case, with the corrections that docs/drop-in.md lists."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2

from epp.headers import CONTROL
from tests.e2e.processes import Picker

from . import gateway as made
from .gateway import CHAT, DESTINATION, SUBSET, Gateway, destination, head, kinds, piece, refusal, set_by, streamed

IPV6 = "[::1]:9"
NEW = b'{"model":"tiny","messages":[{"role":"user","content":"prompt %d that nobody sent before"}]}'


def hint(value: Any) -> dict[str, Any]:
    return {"envoy.lb.subset_hint": {SUBSET: value}}


def test_the_headers_answer_waits_for_the_body_and_comes_before_its_pieces(gateway: Gateway) -> None:
    answers = gateway.say(head(), piece(CHAT[:9]), piece(CHAT[9:]), piece(end=True))
    assert kinds(answers) == ["request_headers", "request_body"]
    assert streamed(answers, "request_body") == [(CHAT, True)]
    assert set_by(answers[0])["Content-Length"] == str(len(CHAT))
    assert answers[0].request_headers.response.clear_route_cache


def test_a_gateway_that_announces_no_mode_is_taken_to_stream_both_ways(gateway: Gateway) -> None:
    assert kinds(gateway.ask(mode=None)) == ["request_headers", "request_body"]


def test_headers_may_stand_in_the_text_field(gateway: Gateway) -> None:
    answers = gateway.ask({"x-request-id": "r1"}, as_text=True)
    assert "x-request-id" not in set_by(answers[0])


def test_a_long_body_comes_back_in_pieces_of_62000_bytes(gateway: Gateway) -> None:
    body = b'{"model":"tiny","prompt":"' + b"x" * 200_000 + b'"}'
    found = streamed(gateway.ask(body=body, path="/v1/completions"), "request_body")
    assert b"".join(part for part, _ in found) == body
    assert [(len(part), end) for part, end in found] == [(62_000, False)] * 3 + [(len(body) - 186_000, True)]


def test_a_request_whose_end_is_trailers_is_answered(gateway: Gateway) -> None:
    answers = gateway.say(head(), piece(CHAT), made.trailers())
    assert kinds(answers) == ["request_headers", "request_body", "request_trailers"]
    assert streamed(answers, "request_body") == [(CHAT, False)]


def test_a_second_end_of_the_request_is_ignored(gateway: Gateway) -> None:
    assert kinds(gateway.say(head(), piece(CHAT, end=True), piece(end=True))) == ["request_headers", "request_body"]


@pytest.mark.parametrize("end", [True, False], ids=["bodiless", "with-a-body"])
def test_control_headers_of_both_generations_are_taken_off(gateway: Gateway, end: bool) -> None:
    messages = [head(dict.fromkeys(CONTROL, "1"), end=end), *([] if end else [piece(CHAT, end=True)])]
    routed = gateway.say(*messages)[0]
    assert made.removed_by(routed) == set(CONTROL)


def test_a_bodiless_request_gets_an_endpoint_its_id_and_no_content_length(gateway: Gateway) -> None:
    (answer,) = gateway.say(head(end=True))
    assert set(set_by(answer)) == {DESTINATION, "x-request-id"}
    assert destination([answer])


def test_the_clients_destination_is_replaced(gateway: Gateway, addresses: list[str]) -> None:
    assert destination(gateway.ask({DESTINATION: "9.9.9.9:1"})) in {*addresses, IPV6}


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("127.0.0.2", [2]),
        (["127.0.0.2"], [2]),
        (["127.0.0.1"], [0, 1]),
        (["nowhere", "{1}"], [1]),
        (["{1}"], [1]),
        (["::1"], [3]),
        (["[::1]"], [3]),
        ([IPV6], [3]),
        (["127.0.0.2", 7, None], [2]),
        (7, [0, 1, 2, 3]),
        ({"a": 1}, [0, 1, 2, 3]),
        (None, [0, 1, 2, 3]),
    ],
    ids=["text", "ip", "ip-of-two", "one-unknown", "ip-port", "ipv6", "bracketed", "ipv6-port", "mixed", "number",
         "object", "null"],
)  # fmt: skip
@pytest.mark.parametrize("carrier", ["headers", "body", "bodiless"])
def test_a_subset_hint_narrows(
    gateway: Gateway, addresses: list[str], value: Any, allowed: list[int], carrier: str
) -> None:
    if isinstance(value, list):
        value = [one.format(*addresses) if isinstance(one, str) else one for one in value]
    told = hint(value)
    if carrier == "bodiless":
        answers = gateway.say(head(end=True, metadata=told))
    else:
        by_head = carrier == "headers"
        answers = gateway.say(
            head(metadata=told if by_head else None), piece(CHAT, end=True, metadata=None if by_head else told)
        )
    assert destination(answers) in [[*addresses, IPV6][row] for row in allowed]


@pytest.mark.parametrize("value", [[], ["10.1.2.3"], ["127.0.0.2:1"], [1]], ids=["empty", "ip", "port", "no-text"])
@pytest.mark.parametrize("end", [True, False], ids=["bodiless", "with-a-body"])
def test_a_hint_that_allows_nobody_is_503(gateway: Gateway, value: Any, end: bool) -> None:
    answers = gateway.say(head(end=end, metadata=hint(value)), *([] if end else [piece(CHAT, end=True)]))
    message = "inference error: ServiceUnavailable - failed to find endpoint candidates for serving the request"
    assert refusal(answers) == (503, message, "rejected-no-endpoints")


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/chat/completions", b"", "error unmarshaling request bodyMap: unexpected end of JSON input"),
        ("/v1/chat/completions", b'{"model":"m"}', "invalid chat completions request: must have valid messages field"),
        ("/v1/completions", b'{"model":"m"}', "invalid completions request: must have prompt field"),
        ("/v1/embeddings", b'{"model":"m"}', "invalid embeddings request: must have input field"),
        ("/v1/responses", b'{"model":"m"}', "invalid responses request: must have input field"),
        ("/v1/completions?x=1", b'{"prompt":"p"}', "model not found in request body"),
    ],
    ids=["empty", "chat", "completions", "embeddings", "responses", "no-model"],
)
def test_a_wrong_body_is_400_in_the_llm_d_routers_words(gateway: Gateway, path: str, body: bytes, said: str) -> None:
    assert refusal(gateway.ask(body=body, path=path)) == (400, f"inference error: BadRequest - {said}", "")


def test_without_a_path_the_body_is_a_completion(gateway: Gateway) -> None:
    assert kinds(gateway.ask(body=b'{"model":"m","prompt":"p"}', path=None)) == ["request_headers", "request_body"]


def test_a_conditional_request_for_an_unknown_prompt_is_412(gateway: Gateway) -> None:
    status, text, _ = refusal(gateway.ask({"prefer": "respond-async, If-Available;a=b"}, NEW % 1))
    assert (status, text) == (412, "inference error: PreconditionFailed - no decode worker has the requested KV cache")


def test_a_repeated_header_counts_with_all_its_values(gateway: Gateway) -> None:
    assert refusal(gateway.ask([("prefer", "if-available"), ("prefer", "wait=9")], NEW % 2))[0] == 412


@pytest.mark.parametrize("name", ["x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite"])
@pytest.mark.parametrize("content", ["json", "events"])
def test_the_rewrite_header_changes_the_model_and_the_response_changes_it_back(
    gateway: Gateway, name: str, content: str
) -> None:
    engine, mark = (made.JSON, b"%s") if content == "json" else (made.SSE, b"data: %s\n\n")
    said, wanted = (
        mark % b'{"model":"big","text":"\\"model\\":\\"big\\""}',
        b'{"model":"tiny","text":"\\"model\\":\\"big\\""}',
    )
    answers = gateway.say(
        head({name: "big"}), piece(CHAT, end=True), made.response(engine), made.response_piece(said[:14]),
        made.response_piece(said[14:], end=True),
    )  # fmt: skip
    assert b'"model":"big"' in streamed(answers, "request_body")[0][0]
    back = streamed(answers, "response_body")
    assert b"".join(part for part, _ in back) == mark % wanted
    assert [end for _, end in back].count(True) == 1


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (made.JSON, [b'{"usage":{"prompt_tokens":', b'7,"completion_tokens":5}}']),
        (made.SSE, [b'data: {"usage":{"prompt_tokens":7,"comple', b'tion_tokens":5}}\n\ndata: [DONE]\n\n']),
        ({**made.SSE, "content-type": "text/event-stream; charset=utf-8"},
         [b'data: {"type":"response.completed","response":{"usage":{"input_tokens":7,', b'"output_tokens":5}}}\n\n']),
    ],
    ids=["json", "events", "responses-api"],
)  # fmt: skip
@pytest.mark.parametrize("by_trailers", [False, True], ids=["end", "trailers"])
def test_usage_is_read_from_split_responses(
    gateway: Gateway, chooser: Picker, engine: dict[str, str], said: list[bytes], by_trailers: bool
) -> None:
    names = ("llm_d_epp_request_input_tokens_sum", "inference_objective_input_tokens_sum",
             "llm_d_epp_request_output_tokens_sum", "inference_objective_output_tokens_sum")  # fmt: skip
    before = [chooser.metric(name) for name in names]
    last = made.response_trailers() if by_trailers else made.response_piece(end=True)
    answers = gateway.say(
        head(), piece(CHAT, end=True), made.response(engine), *[made.response_piece(one) for one in said], last
    )
    assert b"".join(part for part, _ in streamed(answers, "response_body")) == b"".join(said)
    assert (kinds(answers)[-1] == "response_trailers") == by_trailers
    assert [chooser.metric(name) - was for name, was in zip(names, before, strict=True)] == [7, 7, 5, 5]


def test_scores_of_every_candidate_ride_beside_the_destination(gateway: Gateway, addresses: list[str]) -> None:
    told = MessageToDict(gateway.ask()[0].dynamic_metadata)["envoy.lb"]
    assert set(told[f"{DESTINATION}-scores"]) == {*addresses, IPV6}


def test_the_decision_id_on_the_response_leads_to_the_decision(gateway: Gateway, chooser: Picker) -> None:
    answers = gateway.say(head({"x-request-id": "r-7"}), piece(CHAT, end=True), made.response(end=True))
    name = set_by(answers[-1])["x-epp-decision-id"]
    assert '"r-7"' in chooser.get(f"/debug/decisions?id={name}")
    assert set_by(answers[-1])["x-went-into-resp-headers"] == "true"


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (ProcessingMode.BUFFERED, ["request_headers", "request_body"]),
        (ProcessingMode.STREAMED, ["request_headers", "request_body"]),
        (ProcessingMode.NONE, ["request_headers"]),
    ],
    ids=["buffered", "streamed", "none"],
)
def test_each_mode_has_its_own_order(gateway: Gateway, mode: int, expected: list[str]) -> None:
    messages = [head(mode=mode), *([] if mode == ProcessingMode.NONE else [piece(CHAT, end=True)])]
    answers = gateway.say(*messages)
    assert kinds(answers) == expected
    assert destination(answers)


@pytest.mark.parametrize("port", ["grpc_port", "grpc_health_port"])
@pytest.mark.parametrize(
    "name", ["", "liveness", "readiness", "inference-extension", "envoy.service.ext_proc.v3.ExternalProcessor"]
)
def test_health_is_served_by_name_on_both_ports(chooser: Picker, port: str, name: str) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{chooser.ports[port]}") as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        assert check(health_pb2.HealthCheckRequest(service=name), timeout=10).status == 1
