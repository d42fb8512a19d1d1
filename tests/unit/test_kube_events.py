from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.kube import ApiError
from epp.kube.events import Broken, Decoder, Seen
from epp.kube.records import InferencePool, Pod


def line(kind: str, found: Any) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode()


def meta(name: str = "a", version: str = "7", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": version, **more}}


def test_an_object_comes_with_its_version() -> None:
    seen = Decoder(Pod).seen(line("ADDED", meta()))
    assert isinstance(seen, Seen)
    assert (seen.version, seen.gone) == ("7", False)
    assert isinstance(seen.object, Pod)
    assert seen.object.metadata.name == "a"


def test_a_deleted_object_is_gone() -> None:
    seen = Decoder(Pod).seen(line("DELETED", meta()))
    assert seen is not None
    assert seen.gone


@pytest.mark.parametrize("record", [Pod, InferencePool], ids=["nothing required", "a spec required"])
def test_a_bookmark_tells_only_the_version(record: type[Any]) -> None:
    found = line("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": "99", "creationTimestamp": None}})
    assert Decoder(record).seen(found) == Seen("99", None)


@pytest.mark.parametrize("record", [Pod, InferencePool], ids=["nothing required", "a spec required"])
def test_an_error_event_is_raised(record: type[Any]) -> None:
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    with pytest.raises(ApiError) as raised:
        Decoder(record).seen(line("ERROR", status))
    assert (raised.value.status, raised.value.expired) == (410, True)


@pytest.mark.parametrize(
    "found",
    [
        b"not json",
        b'{"type": "ADDED"',
        b'{"type": "ADDED"}',
        b'{"object": {}}',
        b"[]",
        b'{"type":"ADDED","object":7}',
        b"[" * 5_000,
    ],
    ids=len,
)
def test_a_line_that_is_none_is_garbled(found: bytes) -> None:
    decoder = Decoder(Pod)
    if found == b'{"type":"ADDED","object":7}':
        assert decoder.seen(found) is None
        return
    with pytest.raises(ApiError) as raised:
        decoder.seen(found)
    assert raised.value.reason == "Garbled"


def test_a_broken_object_is_told_by_name_with_what_is_wrong() -> None:
    seen = Decoder(Pod).seen(line("MODIFIED", meta(labels=["not", "a", "map"])))
    assert seen is not None
    assert isinstance(seen.object, Broken)
    assert (seen.object.name, seen.version) == ("a", "7")
    assert "labels" in seen.object.problem


def test_an_object_without_a_name_is_passed_over() -> None:
    assert Decoder(Pod).seen(line("ADDED", {"metadata": {"resourceVersion": "7"}})) is None


def test_a_page_with_one_broken_object_gives_the_others() -> None:
    items = [meta("a"), {"metadata": {"name": "b"}, "status": {"podIP": 7}}, meta("c")]
    body = json.dumps({"metadata": {"resourceVersion": "5", "continue": "more"}, "items": items}).encode()
    head, found = Decoder(Pod).page(body)
    assert (head.resource_version, head.next) == ("5", "more")
    assert [one.name if isinstance(one, Broken) else one.metadata.name for one in found] == ["a", "b", "c"]
    assert isinstance(found[1], Broken)


def test_a_page_may_say_null_for_no_items() -> None:
    assert Decoder(Pod).page(b'{"metadata": {"resourceVersion": "1"}, "items": null}')[1] == []


@pytest.mark.parametrize("found", [b"<html>proxy</html>", b"[" * 100_000, b'{"items": [' + b"[" * 5_000], ids=len)
def test_a_page_that_is_none_is_garbled(found: bytes) -> None:
    with pytest.raises(ApiError) as raised:
        Decoder(Pod).page(found)
    assert raised.value.reason == "Garbled"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metadata", "name", "status", "type", "object", "labels", "spec"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(JSON | st.builds(lambda kind, found: {"type": kind, "object": found}, st.text(max_size=8), JSON))
def test_whatever_is_sent_is_told_or_is_an_api_error(found: object) -> None:
    for record in (Pod, InferencePool):
        try:
            seen = Decoder(record).seen(msgspec.json.encode(found))
        except ApiError:
            continue
        assert seen is None or isinstance(seen, Seen)
