"""The model's name into requests and back out of responses."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.bodies import ModelMapper, set_model
from epp.bodies.lines import MAX_LINE_BYTES
from epp.bodies.rewrite import MAX_BODY_BYTES
from epp.types import Refused

RECORDED = Path(__file__).parents[1] / "fixtures" / "bodies"
STREAMS = ["chat-stream.sse", "responses-stream.sse", "anthropic-stream.sse"]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def mapped(
    body: bytes, *, sse: bool, target: str = "tiny", incoming: str = "mine", places: tuple[int, ...] = ()
) -> bytes:
    mapper = ModelMapper(target, incoming, sse)
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    out = [mapper.feed(body[start:end]) for start, end in pairwise(edges)]
    return b"".join([*out, mapper.end()])


def test_only_the_models_value_changes_in_a_request() -> None:
    body = b'{ "x": [1.50, 1e2,  12345678901234567890], "model" : "a",\n "t": "\\u00e9\\/<", "m": {"model": "a"} }'
    assert (
        set_model(body, 'b"/é')
        == ('{"x":[1.50, 1e2,  12345678901234567890],"model":"b\\"/é","t":"\\u00e9\\/<","m":{"model": "a"}}').encode()
    )


def test_a_missing_model_is_added() -> None:
    assert set_model(b'{"prompt": 1.0}', "m") == b'{"prompt":1.0,"model":"m"}'


@given(st.dictionaries(st.text(), values, max_size=5), st.text())
def test_set_model_changes_nothing_else(fields: dict[str, Any], model: str) -> None:
    body = json.dumps(fields).encode()
    raw = msgspec.json.Decoder(dict[str, msgspec.Raw])
    before = {name: bytes(value) for name, value in raw.decode(body).items()}
    after = {name: bytes(value) for name, value in raw.decode(set_model(body, model)).items()}
    assert json.loads(after["model"]) == model
    assert list(after) == list(before | {"model": b""})
    assert after == before | {"model": after["model"]}


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"a": 1', b'{"\xff": 1}', b'{"a":' + b"[" * 9999], ids=repr)
def test_a_model_cannot_be_set_in_what_is_no_object(body: bytes) -> None:
    with pytest.raises(Refused, match="error unmarshaling request bodyMap: ") as refused:
        set_model(body, "m")
    assert refused.value.status == 400


def test_a_model_name_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(Refused, match="is not valid Unicode"):
        set_model(b"{}", "\udcff")


def test_the_name_in_a_plain_response_is_given_back() -> None:
    body = (RECORDED / "completion.json").read_bytes()
    assert mapped(body, sse=False) == body.replace(b'"model":"tiny"', b'"model":"mine"')


@pytest.mark.parametrize(
    ("file", "times"), [("chat-stream.sse", 8), ("responses-stream.sse", 3), ("anthropic-stream.sse", 1)]
)
def test_the_name_in_every_recorded_event_is_given_back(file: str, times: int) -> None:
    body = (RECORDED / file).read_bytes()
    assert body.count(b'"model":"tiny"') == times
    assert mapped(body, sse=True) == body.replace(b'"model":"tiny"', b'"model":"mine"')


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 5000), max_size=12))
def test_a_stream_is_mapped_the_same_however_it_is_cut(file: str, places: list[int]) -> None:
    body = (RECORDED / file).read_bytes()
    assert mapped(body, sse=True, places=tuple(places)) == mapped(body, sse=True)


@given(st.binary(max_size=200), st.booleans(), st.lists(st.integers(0, 200), max_size=5))
def test_what_names_no_model_passes_unchanged(body: bytes, sse: bool, places: list[int]) -> None:
    assert mapped(body, sse=sse, places=tuple(places)) == body


@pytest.mark.parametrize(
    "text",
    [
        b'{"choices":[{"text":"\\"model\\":\\"tiny\\""}], "x":1}',
        b'{"choices":[{"model":"tiny"}], "x":1}',
        b'{"model":"other", "x":1}',
        b'{"model":null, "x":1}',
        b'{"model":"tiny"',
        b'{"response":"model", "message":["model"]}',
        b'["model"]',
    ],
    ids=repr,
)
@pytest.mark.parametrize("sse", [True, False])
def test_whatever_else_says_model_passes_unchanged(text: bytes, sse: bool) -> None:
    body = b"data: " + text + b"\n\n" if sse else text
    assert mapped(body, sse=sse) == body


def test_a_plain_response_is_mapped_at_the_top_only() -> None:
    body = b'{"response":{"model":"tiny"},"message":{"model":"tiny"}}'
    assert mapped(body, sse=False) == body


def test_an_inner_name_is_given_back_though_the_top_has_none_to_give() -> None:
    body = b'data: {"model":null,"response":{"model":"tiny"}}\n\n'
    assert mapped(body, sse=True) == body.replace(b"tiny", b"mine")


def test_an_event_keeps_its_frame() -> None:
    body = b': hi\r\nevent: x\r\ndata:  {"model": "tiny", "n": 1.0} \r\n\r\ndata: {"model":"tiny"}'
    assert mapped(body, sse=True) == (
        b': hi\r\nevent: x\r\ndata:  {"model":"mine","n":1.0} \r\n\r\ndata: {"model":"mine"}'
    )


@pytest.mark.parametrize("spelling", [b'"a\\/\\"\\u00e9"', '"a/\\"é"'.encode()], ids=repr)
def test_names_that_need_escapes_are_known_in_any_spelling(spelling: bytes) -> None:
    body = b'data: {"model":' + spelling + b"}\n\n"
    assert mapped(body, sse=True, target='a/"é', incoming='"\n') == b'data: {"model":"\\"\\n"}\n\n'


def test_only_the_incomplete_line_is_held_back() -> None:
    mapper = ModelMapper("tiny", "mine", sse=True)
    assert mapper.feed(b'data: {"model":"tiny"}\n\ndata: {"mo') == b'data: {"model":"mine"}\n\n'
    assert mapper.feed(b'del":"tiny"}\n') == b'data: {"model":"mine"}\n'
    assert mapper.end() == b""


@pytest.mark.parametrize("places", [(), (5000,), (100, MAX_LINE_BYTES, MAX_LINE_BYTES + 20)], ids=str)
def test_an_overlong_line_passes_unchanged_and_the_next_is_mapped(places: tuple[int, ...]) -> None:
    long = b'data: {"model":"tiny","x":"' + b"y" * MAX_LINE_BYTES + b'"}\n'
    out = mapped(long + b'data: {"model":"tiny"}\n', sse=True, places=places)
    assert out == long + b'data: {"model":"mine"}\n'


def test_an_overlong_body_passes_unchanged_and_unheld() -> None:
    mapper = ModelMapper("tiny", "mine", sse=False)
    start = b'{"model":"tiny","x":"' + b"y" * MAX_BODY_BYTES
    assert mapper.feed(start) == start
    assert (mapper.feed(b'"}'), mapper.end()) == (b'"}', b"")
