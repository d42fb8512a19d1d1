"""Whatever plug-ins answer, of whatever class, costs their own part of a request and no more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from epp import Endpoints, Refused
from epp.pickers import max_score_picker
from epp.plan import Measured
from epp.plugins import shown
from epp.profile_handlers import single_profile_handler
from epp.scheduler import Bound, Profile
from epp.signals import Provides, column

from .kit import A, B, World, response_body, response_headers, said, setup

PROMPT = {"model": "m", "prompt": "x"}
ASKED = ("endpoints",)


class Hollow:
    """Raises whatever is asked of it, its class too."""

    @property  # type: ignore[misc]
    def __class__(self) -> NoReturn:
        raise RuntimeError("no class")

    def __len__(self) -> NoReturn:
        raise RuntimeError("no length")

    def __iter__(self) -> NoReturn:
        raise RuntimeError("no members")

    def __hash__(self) -> NoReturn:
        raise RuntimeError("no hash")


class Rebel(np.ndarray[Any, Any]):
    """An array that answers otherwise than arrays do."""

    def _no(self, *_: object) -> NoReturn:
        raise RuntimeError("not me")

    all = argmax = argmin = item = tolist = __invert__ = _no  # type: ignore[assignment]


class Words(list[Any]):
    def __iter__(self) -> NoReturn:
        raise RuntimeError("no members")


class Text(str):
    __slots__ = ()

    def __hash__(self) -> NoReturn:
        raise RuntimeError("no hash")

    def isprintable(self) -> NoReturn:
        raise RuntimeError("not me")


def rebel(values: Any) -> NDArray[Any]:
    return np.array(values).view(Rebel)


def endless() -> Iterator[int]:
    while True:
        yield 0


ODD: dict[str, Callable[[], Any]] = {
    "hollow": Hollow,
    "rebel numbers": lambda: rebel([0.0, 1.0]),
    "rebel yes": lambda: rebel([True, True]),
    "rebel rows": lambda: rebel([1]),
    "masked row": lambda: np.ma.masked_array([0], mask=[True]),
    "masked numbers": lambda: np.ma.masked_array([0.0, 1.0], mask=[False, True]),
    "endless": endless,
    "words": lambda: Words(["default"]),
    "number": lambda: 7,
    "two": lambda: {0: 1.0, "x": 2.0},
}
PLACES = ["filter", "scorer", "picker", "signal", "pair", "handler", "primary", "screener", "admitter"]


def world(place: str, answer: Callable[[], Any], **hooks: Any) -> World:
    """Plug-ins that keep the contract, but for the one in this place."""

    def at(name: str, right: Callable[..., Any]) -> Callable[..., Any]:
        return (lambda *_: answer()) if name == place else right

    def yes(endpoints: Endpoints) -> NDArray[np.bool_]:
        return np.ones(len(endpoints), dtype=np.bool_)

    def zeros(endpoints: Endpoints) -> NDArray[np.float64]:
        return np.zeros(len(endpoints))

    pair = Provides({"one": 0.0, "inflight_charge": (np.zeros(2), np.zeros(2))}, "", False, 100.0)
    profile = Profile(
        "default",
        (Bound("filter", at("filter", yes), ASKED),),
        ((Bound("scorer", at("scorer", zeros), ASKED), 1.0), (Bound("even", zeros, ASKED), 1.0)),
        Bound("picker", at("picker", max_score_picker), ("scores", "rng")),
    )
    made = setup(
        profiles={"default": profile},
        handler=Bound("handler", at("handler", single_profile_handler), ("request", "profiles", "runs")),
        primary=(lambda *_: answer()) if place == "primary" else None,
        signals=(
            Measured(Bound("signal", at("signal", zeros), ASKED), Provides({"x": column()}, "", False, 100.0), ("x",)),
            Measured(
                Bound("pair", at("pair", lambda _: (1.0, (np.ones(2), np.ones(2)))), ASKED), pair, tuple(pair.values)
            ),
        ),
        screeners=(Bound("screener", at("screener", yes), ASKED),),
        admitters=(Bound("admitter", at("admitter", lambda _: None), ASKED),),
    )
    return World([A, B], made=made, **hooks)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_answer_costs_its_own_part_of_the_decision(place: str, odd: str) -> None:
    made = world(place, ODD[odd])
    dialogue, answers = made.asked(PROMPT)
    if place == "handler":
        assert [answer.WhichOneof("response") for answer in answers] == ["immediate_response"]
    else:
        assert [answer.WhichOneof("response") for answer in answers] == ["request_headers", "request_body"]
    dialogue.close("error")
    assert made.pool.ledger.requests == 0


@pytest.mark.parametrize("charge", [None, 5, ((), ()), ([math.nan] * 2,) * 2, ([math.inf] * 2,) * 2], ids=str)
def test_a_charge_that_is_none_counts_the_body_and_is_told(charge: Any) -> None:
    made = world("pair", lambda: (1.0, charge))
    made.asked(PROMPT)
    [load] = [load for load in map(made.pool.ledger.load, (A.key, B.key)) if load.requests]
    assert (load.requests, load.tokens) == (1, len('{"model": "m", "prompt": "x"}') / 4)
    assert made.notes.all("hook_failed") == ([] if charge is None else ["inflight_charge"])


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({"status": np.int64(418)}, (418, "no")),
        ({"status": 10**30}, (500, "no")),
        ({"message": "half \udc80"}, (429, "half ?")),
        ({"retry_after_s": math.inf}, (429, "no")),
        ({"retry_after_s": math.nan}, (429, "no")),
    ],
    ids=str,
)
def test_a_refusal_of_odd_numbers_and_letters_is_told(more: dict[str, Any], kept: tuple[int, str]) -> None:
    made = world("admitter", lambda: Refused(**{"status": 429, "message": "no", **more}))
    _, [answer] = made.asked(PROMPT)
    immediate = answer.immediate_response
    assert (immediate.status.code, immediate.body.decode().partition(" - ")[2]) == kept


@pytest.mark.parametrize(
    "wrong", [{"status": "429"}, {"status": 429.5}, {"message": b"no"}, {"reason": 5}, {"retry_after_s": "5"}], ids=str
)
def test_a_refusal_that_is_none_is_an_error_of_who_makes_it(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Refused(**{"status": 429, "message": "no", **wrong})


def circle() -> list[Any]:
    around: list[Any] = []
    around.append(around)
    return around


def nested(levels: int) -> Any:
    return {"a": nested(levels - 1)} if levels else 1.0


@pytest.mark.parametrize(
    ("told", "sent"),
    [
        ({"ns": {"a": circle()}}, False),
        ({"ns": nested(100)}, False),
        ({"ns": nested(20)}, True),
        ({"ns": {"a": "\udc80"}}, False),
        ({"ns": {"\udc80": 1}}, False),
        ({"ns": {"a": Text("b")}}, True),
    ],
    ids=["circle", "deep", "not so deep", "half a letter", "half a name", "own text"],
)
def test_metadata_that_cannot_be_sent_is_left_out_of_the_response(told: Any, sent: bool) -> None:
    class Hook:
        def finished(self, *_: object) -> Any:
            return told

    made = World(hooks=[Hook()])
    dialogue, _ = made.asked(PROMPT)
    said(dialogue, response_headers())
    [last] = said(dialogue, response_body(b"{}", end=True))
    assert last.response_body.response.body_mutation.streamed_response.body == b"{}"
    assert ("ns" in last.dynamic_metadata.fields, made.notes.all("hook_failed")) == (sent, [] if sent else ["hooked"])


@pytest.mark.parametrize(("value", "sent"), [("\udc80", False), (Text("b"), True)], ids=["half a letter", "own text"])
def test_a_header_that_cannot_be_sent_is_left_out_of_the_response(value: str, sent: bool) -> None:
    class Hook:
        def response_headers(self, *_: object) -> Any:
            return {"x-told": value}

    made = World(hooks=[Hook()])
    dialogue, _ = made.asked(PROMPT)
    [head] = said(dialogue, response_headers())
    names = [option.header.key for option in head.response_headers.response.header_mutation.set_headers]
    assert ("x-told" in names, made.notes.all("hook_failed")) == (sent, [] if sent else ["hooked"])


def test_an_exception_whose_text_ends_the_process_has_no_text() -> None:
    class Exit(Exception):
        def __repr__(self) -> str:
            raise SystemExit(3)

    assert shown(Exit()) == "Exit, which has no text"


def test_an_exception_that_quotes_a_whole_prompt_is_cut_short() -> None:
    assert len(shown(ValueError("x" * 1_000_000))) == 1_001
