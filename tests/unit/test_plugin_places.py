"""What a file offers, from its annotations or its own word."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from epp import Column, Mask, Rows, Scores
from epp.plugin_places import Offer, offers, type_name
from epp.settings import PluginError

IMPORTS = """\
from typing import TYPE_CHECKING, Protocol
import abc, functools
import numpy as np
import epp
from epp import Column, Endpoints, Mask, Refused, Request, Rows, Scores, column, signal
"""
Offered = Callable[..., list[tuple[str, str]]]


@pytest.fixture(params=["", "from __future__ import annotations\n"], ids=["annotations", "as text"])
def offered(request: pytest.FixtureRequest) -> Iterator[Offered]:
    """(type, place) of all that a file's text offers; with annotations as objects and as text."""
    module = ModuleType("offering")
    sys.modules["offering"] = module

    def made(text: str) -> list[tuple[str, str]]:
        exec(request.param + IMPORTS + text, vars(module))  # the test's own text
        return [(offer.type, offer.place) for offer in offers(module, "a.py")]

    yield made
    del sys.modules["offering"]


def test_scores_and_columns_are_told_apart() -> None:
    assert len({id(Scores), id(Column), id(Mask), id(Rows)}) == 4


DERIVED = {
    "a scorer": ("def short_queue(e: Endpoints) -> Scores: ...", [("short-queue", "scorer")]),
    "by its whole name": ("def short_queue(e: Endpoints) -> epp.Scores: ...", [("short-queue", "scorer")]),
    "a filter": ("def near(e: Endpoints) -> Mask: ...", [("near", "filter")]),
    "a detector": ("def load(e: Endpoints) -> Column: ...", [("load", "detector")]),
    "a class that detects": ("class Load:\n    def saturation(self) -> Column: ...", [("load", "detector")]),
    "a picker": ("def pick_one(scores: Scores) -> Rows: ...", [("pick-one", "picker")]),
    "a signal": ('@signal({"heat": column(0.5)})\ndef heat(e: Endpoints) -> Column: ...', [("heat", "signal")]),
    "an async signal": ('@signal({"x": 0.0})\nasync def x(request: Request) -> float: ...', [("x", "signal")]),
    "a class": ("class ShortQueue:\n    def __call__(self) -> Scores: ...", [("short-queue", "scorer")]),
    "a class that is a signal": ('@signal({"x": 0.0})\nclass X:\n    def __call__(self): ...', [("x", "signal")]),
    "a class with two roles": (
        "class Both:\n    def score(self) -> Scores: ...\n    def filter(self) -> Mask: ...",
        [("both", "filter"), ("both", "scorer")],
    ),
    "a signal that filters": (
        '@signal({"x": 0.0})\nclass X:\n    def measure(self): ...\n    def filter(self) -> Mask: ...',
        [("x", "signal"), ("x", "filter")],
    ),
    "a class with hooks alone": ("class Ear:\n    def picked(self, request, decision): ...", [("ear", "hook")]),
    "a scorer with hooks": (
        "class S:\n    def __call__(self) -> Scores: ...\n    def picked(self, r, d): ...",
        [("s", "scorer")],
    ),
    "what it inherits": ("class _A:\n    def score(self) -> Scores: ...\nclass B(_A): ...", [("b", "scorer")]),
    "what is wrapped": (
        "def _w(f):\n    @functools.wraps(f)\n    def g(*a):\n        return f(*a)\n    return g\n"
        "@_w\ndef even(e: Endpoints) -> Scores: ...",
        [("even", "scorer")],
    ),
    "each once": ("def even(e: Endpoints) -> Scores: ...\nequal = even", [("even", "scorer")]),
}


@pytest.mark.parametrize(("text", "expected"), DERIVED.values(), ids=list(DERIVED))
def test_the_return_annotation_tells_the_place(text: str, expected: list[tuple[str, str]], offered: Offered) -> None:
    assert offered(text) == expected


NO_PLUG_IN = {
    "private": "def _even(e: Endpoints) -> Scores: ...",
    "unannotated": "def even(e): ...",
    "imported": "from epp.pickers import random_picker",
    "a lambda": "even = lambda e: e",
    "a protocol": "class Even(Protocol):\n    def score(self) -> Scores: ...",
    "an abstract class": "class Even(abc.ABC):\n    @abc.abstractmethod\n    def score(self) -> Scores: ...",
    "a method of the wrong kind": "class Even:\n    def score(self) -> Mask: ...",
    "a plain class": "class Even:\n    x = 1",
    "an empty word": "PLUGINS = {}\ndef even(e: Endpoints) -> Scores: ...",
}


@pytest.mark.parametrize("text", NO_PLUG_IN.values(), ids=list(NO_PLUG_IN))
def test_other_things_are_no_plug_ins(text: str, offered: Offered) -> None:
    with pytest.raises(PluginError, match=r"^a\.py: offers no plug-in; annotate what"):
        offered(text)


def test_the_files_own_word_replaces_what_annotations_tell(offered: Offered) -> None:
    text = """
def even(e: Endpoints) -> Scores: ...
def rest(request: Request) -> Refused | None: ...
class Both:
    def score(self) -> Scores: ...
    def filter(self) -> Mask: ...
PLUGINS = {"epp.admitters": {"night-rest": rest}, "epp.filters": {"two": Both}, "epp.scorers": {"two": Both}}
"""
    assert offered(text) == [("night-rest", "admitter"), ("two", "filter"), ("two", "scorer")]


WRONG = {
    "a group": ('PLUGINS = {"epp.admitter": {}}', "a.py: PLUGINS has no group 'epp.admitter'; have: epp.filters,"),
    "a list": ("PLUGINS = []", 'a.py: PLUGINS is list; write PLUGINS = {"epp.admitters": {"night-rest": night_rest}}'),
    "no mapping in it": ('PLUGINS = {"epp.scorers": [1]}', "a.py: PLUGINS['epp.scorers'] must map plug-in types to"),
    "no text as a type": ('PLUGINS = {"epp.scorers": {1: len}}', "must map plug-in types to functions"),
    "two of a name": (
        "def a_b(e: Endpoints) -> Scores: ...\nclass A_B:\n    def score(self) -> Scores: ...",
        "a.py: a_b and A_B are both called 'a-b'; rename one",
    ),
}


@pytest.mark.parametrize(("text", "told"), WRONG.values(), ids=list(WRONG))
def test_what_is_unclear_is_told(text: str, told: str, offered: Offered) -> None:
    with pytest.raises(PluginError) as raised:
        offered(text)
    assert told in str(raised.value)


def test_an_annotation_that_only_a_type_checker_can_read_is_told() -> None:
    module = ModuleType("offering")
    text = "from __future__ import annotations\n\ndef even(e) -> Scores: ..."
    exec(text, vars(module))  # the test's own text
    with pytest.raises(PluginError, match=r"a\.py:3: what even returns can't be read: name 'Scores' is not defined;"):
        offers(module, "a.py")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("short_queue", "short-queue"),
        ("ShortQueue", "short-queue"),
        ("LRUScorer", "lru-scorer"),
        ("KVCache2Scorer", "kv-cache2-scorer"),
        ("even", "even"),
        ("trailing_", "trailing"),
    ],
)
def test_names_become_types(name: str, expected: str) -> None:
    assert type_name(name) == expected


def test_an_offer_holds_what_it_offers() -> None:
    module = ModuleType("offering")
    exec("def f(): ...\nPLUGINS = {'epp.screeners': {'x': f}}", vars(module))  # the test's own text
    assert offers(module, "a.py") == [Offer("screener", "x", vars(module)["f"])]
