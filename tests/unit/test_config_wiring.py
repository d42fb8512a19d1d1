"""Who answers what plug-ins read: providers chosen, added and ordered, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from epp import Decision
from epp.config import Built, ConfigError
from epp.plan import Given
from epp.profiles import decide
from epp.testing import endpoints, request
from tests.config_kit import made, perhaps_by_heat


def decided(built: Built) -> Decision:
    """A decision over two endpoints."""
    given = Given(request(), endpoints(waiting=[0, 9]), 0.0, np.random.default_rng(1), lambda: 0.0)
    decision = decide(built.setup, given, built.setup.columns)
    assert isinstance(decision, Decision)
    return decision


def votes(built: Built) -> dict[str, list[float]]:
    return {vote.by: vote.scores.tolist() for vote in decided(built).run.votes}


def added(built: Built) -> dict[str, str]:
    """Plug-in added → why, parsers and the like apart."""
    found = built.resolved.value["plugins"]
    names = {f"plugins[{number}]": entry["name"] for number, entry in enumerate(found)}
    return {names[path]: why for path, why in built.resolved.remarks.items() if " reads " in why}


def signals(built: Built) -> list[tuple[str, tuple[str, ...]]]:
    return [(signal.bound.name, signal.outputs) for signal in built.setup.signals]


def test_missing_providers_are_added_and_what_they_read_comes_first() -> None:
    built = made("plugins: [{type: by-heat}]")
    assert added(built) == {
        "thermometer": "added: by-heat reads heat",
        "barometer": "added: thermometer reads weather",
    }
    assert signals(built) == [("barometer", ("weather",)), ("thermometer", ("heat", "source"))]
    assert votes(built) == {"by-heat": [0.75, 0.75]}


def test_columns_are_told_apart_from_values() -> None:
    assert made("plugins: [{type: by-heat}]").setup.columns == {"heat"}


def test_hooks_of_added_plug_ins_are_collected() -> None:
    assert [plugin.name for plugin in made("plugins: [{type: by-heat}]").hooks] == ["thermometer"]


def test_a_renamed_default_provider_is_used_where_it_is_the_only_one() -> None:
    built = made("plugins: [{type: by-heat}, {type: thermometer, name: mine, parameters: {degrees: 1}}]")
    assert list(added(built)) == ["barometer"]
    assert votes(built) == {"by-heat": [0.0, 0.0]}


def test_a_provider_that_is_no_default_is_used_where_it_is_the_only_one() -> None:
    assert votes(made("plugins: [{type: perhaps-by-heat}, {type: thermometer}, {type: moody}]")) == {
        "perhaps-by-heat": [0.0, 0.0]
    }


def test_to_name_the_default_provider_is_to_name_none_where_it_goes_by_another_name() -> None:
    built = made("""
        plugins:
        - {type: by-heat, parameters: {heatProducerName: thermometer}}
        - {type: thermometer, name: mine, parameters: {degrees: 1}}
        """)
    assert votes(built) == {"by-heat": [0.0, 0.0]}


TWO = """
plugins:
- {type: thermometer, parameters: {degrees: 0.1}}
- {type: thermometer, name: other, parameters: {degrees: 0.2}}
- {type: by-heat}
- {type: by-heat, name: picky, parameters: {heatProducerName: other}}
"""


def test_a_reader_chooses_its_provider_by_name_and_the_default_one_serves_the_others() -> None:
    built = made(TWO)
    assert votes(built) == {"by-heat": [0.9, 0.9], "picky": [0.8, 0.8]}
    assert signals(built)[1:] == [
        ("thermometer", ("heat", "source")),
        ("other", ("heat@other", "source@other")),
    ]
    assert built.setup.columns == {"heat", "heat@other"}


def test_of_several_providers_only_those_that_are_read_are_computed() -> None:
    built = made(TWO.replace("- {type: by-heat}\n", ""))
    assert signals(built) == [("barometer", ("weather",)), ("other", ("heat", "source"))]


def test_signals_nobody_reads_are_not_computed() -> None:
    assert signals(made("plugins: [{type: even}, {type: thermometer}, {type: moody}]")) == []


def test_a_reader_does_without_what_nobody_provides() -> None:
    built = made("plugins: [{type: perhaps-by-heat}]")
    assert signals(built) == []
    assert votes(built) == {"perhaps-by-heat": [0.0, 0.0]}
    bound = built.setup.profiles["default"].scorers[0][0]
    assert (bound.call, bound.keys) == (perhaps_by_heat, ("endpoints",))


def test_a_reader_gets_what_it_could_do_without_where_somebody_provides_it() -> None:
    built = made("plugins: [{type: perhaps-by-heat}, {type: thermometer}]")
    assert built.setup.profiles["default"].scorers[0][0].keys == ("endpoints", "heat")
    assert votes(built) == {"perhaps-by-heat": [0.75, 0.75]}


def test_an_optional_signal_is_used_also_where_it_was_added_for_another_reader() -> None:
    built = made("plugins: [{type: perhaps-by-heat}, {type: by-heat}]")
    assert votes(built)["perhaps-by-heat"] == [0.75, 0.75]


def test_signals_the_picker_reads_itself_are_computed_where_somebody_provides_them() -> None:
    assert signals(made("plugins: [{type: moody}]", also=("mood", "heat"))) == [("moody", ("mood",))]
    assert signals(made("plugins: [{type: even}]", also=("mood", "heat"))) == []


REFUSED = {
    "a circle": (
        "plugins: [{type: hen}, {type: chick}, {type: even}]",
        {"also": ("egg",)},
        "signals read each other in a circle: hen → chick → hen; break it",
    ),
    "nobody provides it": (
        "plugins: [{type: by-rumour}, {type: moody}]",
        {},
        "plugins[0] (line 3): by-rumour reads 'rumour', which no plug-in provides; have: mood",
    ),
    "a provider that is not there": (
        "plugins: [{type: by-heat, parameters: {heatProducerName: sun}}, {type: thermometer, name: son}]",
        {},
        "plugins[0].parameters.heatProducerName (line 3): no plug-in named 'sun' provides heat; did you mean son?",
    ),
    "a provider that is not there, nor any other": (
        "plugins: [{type: by-heat, parameters: {heatProducerName: sun}}]",
        {},
        "plugins[0].parameters.heatProducerName (line 3): no plug-in named 'sun' provides heat; have: none",
    ),
    "several and none by its own name": (
        "plugins: [{type: by-heat}, {type: thermometer, name: a}, {type: thermometer, name: b}]",
        {},
        "plugins[0] (line 3): by-heat reads heat, which a and b provide; say which with the parameter heatProducerName",
    ),
    "several and no way to choose": (
        "plugins: [{type: thermometer}, {type: barometer, name: a}, {type: barometer, name: b}, {type: by-heat}]",
        {},
        "plugins[0] (line 3): thermometer reads weather, which a and b provide; keep one of them",
    ),
    "its name is taken": (
        "plugins: [{type: by-heat}, {type: moody, name: thermometer}]",
        {},
        "plugins[1] (line 3): the name 'thermometer' is needed for the provider of heat; choose another",
    ),
}


@pytest.mark.parametrize(("text", "settings", "told"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_wired_is_refused(text: str, settings: dict[str, tuple[str, ...]], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        made(text, **settings)
    assert told in str(raised.value)
