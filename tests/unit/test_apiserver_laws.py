"""The API server in tests: what holds whatever is written."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.apiserver import ApiError, ApiServer
from tests.apiserver.client import pod
from tests.apiserver.reads import page
from tests.apiserver.tables import View
from tests.apiserver.watches import Stream

Write = tuple[str, str, str]
"""What is done, to which pod, with which label."""
WRITES = st.lists(
    st.tuples(st.sampled_from(["create", "label", "delete"]), st.sampled_from("abc"), st.sampled_from("xy"))
)
SELECTORS = st.sampled_from(["", "app=x", "app!=x", "app in (y)"])
State = dict[str, Any]


def _write(server: ApiServer, writes: list[Write]) -> None:
    """Those that make no sense, such as a second creation, are left out."""
    for what, name, label in writes:
        there = name in {each["metadata"]["name"] for each in server.all("Pod")}
        if what == "create" and not there:
            server.create(pod(name, app=label))
        elif what == "label" and there:
            server.patch("Pod", "llm", name, {"metadata": {"labels": {"app": label}}})
        elif what == "delete" and there:
            server.delete("Pod", "llm", name, grace_s=0)


def _listed(server: ApiServer, **query: str) -> State:
    found = page(server.store, server.kind("Pod"), "llm", query)
    return {item.key[1]: item.copy() for item in found.items}


def _followed(server: ApiServer, before: State, **query: str) -> State:
    """The state after the events of a watch, each checked to be possible."""
    state = dict(before)
    stream = Stream(server.store, server.kind("Pod"), "llm", query, View())
    for line in stream.first():
        event = msgspec.json.decode(line)
        name = event["object"]["metadata"]["name"]
        assert (event["type"] == "ADDED") == (name not in state)
        state.pop(name, None)
        if event["type"] != "DELETED":
            state[name] = event["object"]
    return state


@given(before=WRITES, after=WRITES, selector=SELECTORS)
def test_a_list_and_the_watch_after_it_make_the_next_list(
    before: list[Write], after: list[Write], selector: str
) -> None:
    server = ApiServer()
    _write(server, before)
    first, version = _listed(server, labelSelector=selector), server.version
    _write(server, after)
    assert _followed(server, first, labelSelector=selector, resourceVersion=version) == _listed(
        server, labelSelector=selector
    )


@given(before=WRITES, after=WRITES)
def test_a_state_can_be_listed_as_it_was(before: list[Write], after: list[Write]) -> None:
    server = ApiServer()
    server.create(pod("first"))
    _write(server, before)
    first, version = _listed(server), server.version
    _write(server, after)
    assert _listed(server, resourceVersion=version, resourceVersionMatch="Exact") == first


@given(writes=WRITES, limit=st.integers(1, 4), selector=SELECTORS)
def test_pages_make_the_whole_list(writes: list[Write], limit: int, selector: str) -> None:
    server = ApiServer()
    _write(server, writes)
    query, names = {"limit": str(limit), "labelSelector": selector}, []
    while True:
        found = page(server.store, server.kind("Pod"), "llm", query)
        names += [item.key[1] for item in found.items]
        if not found.after:
            break
        query["continue"] = found.after
    assert names == list(_listed(server, labelSelector=selector))


@pytest.mark.parametrize("history", [1, 3])
@given(writes=WRITES)
def test_a_short_history_is_told_whole_or_refused(history: int, writes: list[Write]) -> None:
    server = ApiServer(history=history)
    server.create(pod("first"))
    first, version = _listed(server), server.version
    _write(server, writes)
    if int(version) < server.store.bucket(server.kind("Pod")).compacted:
        with pytest.raises(ApiError, match="too old resource version"):
            _followed(server, first, resourceVersion=version)
    else:
        assert _followed(server, first, resourceVersion=version) == _listed(server)
