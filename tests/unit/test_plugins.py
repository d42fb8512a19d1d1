"""How a plug-in is found, built and checked, and what its author is told when it can't be used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest

from epp import Endpoints, Mask, Refused, Request, Scores, signal, testing
from epp.plugins import PLACES, Catalogue, Plugin
from epp.settings import PluginError, plain


class Condition(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    max_value: float


def half(endpoints: Endpoints) -> Scores:
    """Half a vote for all."""
    return np.full(len(endpoints), 0.5)


def tuned(
    endpoints: Endpoints,
    *,
    half_at: Annotated[float, msgspec.Meta(gt=0)] = 4.0,
    conditions: list[Condition] | None = None,
) -> Scores:
    return np.exp2(-endpoints.waiting / half_at)


class Remembering:
    """Remembers."""

    def __init__(self, *, size: int) -> None:
        if size < 1:
            raise ValueError("size must be at least 1")
        self.size = size

    def filter(self, endpoints: Endpoints) -> Mask:
        return np.ones(len(endpoints), dtype=np.bool_)

    def score(self, endpoints: Endpoints) -> Scores:
        return np.zeros(len(endpoints))

    def picked(self, request: Request, decision: object) -> None: ...


class Positional:
    def __init__(self, size: int) -> None: ...


def undeclared(request: Request) -> int:
    return 1


@signal({"x": 0.0})
def declared(request: Request) -> float:
    return 1.0


@pytest.fixture
def catalogue() -> Callable[..., Catalogue]:
    """A catalogue of `place=object` pairs, as if a package had registered them."""
    module = ModuleType("some_plugins")
    sys.modules["some_plugins"] = module

    def made(*entries: tuple[str, str, Any]) -> Catalogue:
        for at, (_, _, target) in enumerate(entries):
            setattr(module, f"p{at}", target)
        return Catalogue(
            (place, EntryPoint(name, f"some_plugins:p{at}", PLACES[place]))
            for at, (place, name, _) in enumerate(entries)
        )

    return made


def built(found: Catalogue, name: str, **parameters: Any) -> Plugin:
    return found.build(name, name, parameters, "plugins[0].parameters")


def test_a_function_is_bound_to_its_settings_in_either_spelling(catalogue: Any) -> None:
    found = catalogue(("scorer", "tuned", tuned))
    for spelling in ("half_at", "halfAt", "HALFAT"):
        plugin = built(found, "tuned", **{spelling: 8})
        assert plugin.settings == {"half_at": 8.0}
    assert plugin.reads("scorer").keys() == {"endpoints"}


def test_nested_settings_take_either_spelling_too(catalogue: Any) -> None:
    plugin = built(catalogue(("scorer", "tuned", tuned)), "tuned", conditions=[{"max_value": 1}, {"MaxValue": 2}])
    assert [condition.max_value for condition in plugin.settings["conditions"]] == [1.0, 2.0]


def test_a_class_in_two_groups_is_one_instance_with_two_methods(catalogue: Any) -> None:
    found = catalogue(("filter", "both", Remembering), ("scorer", "both", Remembering))
    # One object under two names of the module: both entry points must name the same.
    plugin = built(found, "both", size=3)
    assert set(plugin.places) == {"filter", "scorer"}
    assert plugin.call("filter").__self__ is plugin.call("scorer").__self__
    assert plugin.hook("picked") is not None
    assert plugin.hook("finished") is None


def test_parameters_of_a_plug_in_without_settings_are_ignored(catalogue: Any) -> None:
    assert built(catalogue(("scorer", "half", half)), "half", whatever=1).settings == {}


@pytest.mark.parametrize(
    ("target", "parameters", "message"),
    [
        (tuned, {"halfat": 1, "half_at": 2}, "parameter 'halfAt' is given twice"),
        (tuned, {"half_att": 1}, "no parameter named 'half_att'; did you mean 'halfAt'? have: conditions, halfAt"),
        (tuned, {"half_at": 0}, "halfAt: Expected `float` > 0.0"),
        (tuned, {"half_at": "much"}, "halfAt: Expected `float`, got `str`"),
        (tuned, {"conditions": [{"maxVal": 1}]}, "conditions: Object"),
        (Remembering, {}, "required parameter missing: size"),
        (Remembering, {"size": 0}, "size must be at least 1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_parameter_is_named_with_the_choices(
    catalogue: Any, target: Any, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(PluginError) as error:
        built(catalogue(("scorer", "it", target)), "it", **parameters)
    assert message in str(error.value)
    assert str(error.value).startswith("plugins[0].parameters (it)")


def test_an_unknown_type_is_named_with_those_like_it(catalogue: Any) -> None:
    with pytest.raises(PluginError, match="no plug-in type 'hlaf'; did you mean half"):
        catalogue(("scorer", "half", half)).find("hlaf")


def test_a_signal_must_say_what_it_provides(catalogue: Any) -> None:
    with pytest.raises(PluginError, match="declare what it provides"):
        catalogue(("signal", "s", undeclared)).find("s")
    assert catalogue(("signal", "s", declared)).find("s").provides.values == {"x": 0.0}


def test_settings_of_a_class_must_be_keyword_only(catalogue: Any) -> None:
    with pytest.raises(PluginError, match="put `\\*` before 'size'"):
        catalogue(("scorer", "s", Positional)).find("s")


def test_a_plug_in_that_cannot_be_imported_names_itself_and_the_error() -> None:
    found = Catalogue([("scorer", EntryPoint("gone", "no_such_module:x", "epp.scorers"))])
    with pytest.raises(PluginError, match="'gone' \\(no_such_module:x\\) can't be imported"):
        found.find("gone")


# ---- the check at load


def checked(catalogue: Any, place: str, target: Any, **provided: Any) -> None:
    testing.check(built(catalogue((place, "it", target)), "it"), provided)


def raising(endpoints: Endpoints) -> Scores:
    return endpoints.waiting / np.zeros(0).max()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("place", "target", "message"),
    [
        ("scorer", lambda endpoints: np.ones(3), "it (scorer, 0 endpoints): must return a float64 array of shape (0,)"),
        ("scorer", lambda endpoints: endpoints.waiting, "scores must be in [0, 1], higher is better; got 0 … 4"),
        ("scorer", lambda endpoints: np.full(len(endpoints), np.nan), "returned NaN"),
        ("scorer", lambda endpoints: 1.0, "got float"),
        ("scorer", raising, "raised ValueError"),
        ("scorer", lambda prefix_hits: np.ones(1), "nobody provides 'prefix_hits'; a scorer may read: endpoints, now"),
        ("filter", lambda endpoints: endpoints.waiting, "must return a boolean mask of shape (0,), got float64"),
        ("admitter", lambda request: True, "must return None or epp.Refused, got bool"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_plug_in_that_breaks_the_contract_is_told_the_rule(
    catalogue: Any, place: str, target: Any, message: str
) -> None:
    with pytest.raises(PluginError) as error:
        checked(catalogue, place, target)
    assert message in str(error.value)


def test_only_a_signal_may_be_async(catalogue: Any) -> None:
    async def slow(endpoints: Endpoints) -> Scores:
        return endpoints.waiting

    with pytest.raises(PluginError, match="only a signal may be async"):
        checked(catalogue, "scorer", slow)


def test_good_plug_ins_pass(catalogue: Any) -> None:
    checked(catalogue, "scorer", half)
    checked(catalogue, "filter", lambda endpoints: endpoints.waiting < 2)
    checked(catalogue, "admitter", lambda request: Refused(429, "no"))
    checked(catalogue, "scorer", lambda endpoints, hits: np.zeros(len(endpoints)), hits=1.0)
    checked(catalogue, "scorer", lambda endpoints, hits=None: np.zeros(len(endpoints)))
    testing.check_scorer(tuned, half_at=2.0)


def test_an_author_can_check_a_scorer_alone() -> None:
    def too_high(endpoints: Endpoints) -> Scores:
        return endpoints.waiting

    def settled(endpoints: Endpoints, *, most: float) -> Scores:
        return np.minimum(endpoints.waiting, most)

    with pytest.raises(PluginError, match="too_high"):
        testing.check_scorer(too_high)
    testing.check_scorer(settled, most=1.0)
    with pytest.raises(PluginError, match="settled"):
        testing.check_scorer(settled, most=2.0)


def test_made_up_endpoints_have_as_many_rows_as_the_longest_argument() -> None:
    made = testing.endpoints(waiting=[0, 9], loras=[(["a"], []), ([], ["b"])], attributes={"x": [None, 2.0]})
    assert (len(made), made.waiting.tolist(), made.kv_usage.tolist()) == (2, [0, 9], [0, 0])
    assert [c.tolist() for c in made.attribute("x")] == [[0, 2], [False, True]]
    assert made.take(np.array([1])).loras() == [(frozenset(), frozenset({"b"}))]
    with pytest.raises(TypeError, match="no column named 'wating'"):
        testing.endpoints(wating=[1])


@pytest.mark.parametrize("key", ["maxTokens", "max_tokens", "MAXTOKENS", "Max_Tokens"])
def test_spellings_of_one_name_are_equal(key: str) -> None:
    assert plain(key) == "maxtokens"
