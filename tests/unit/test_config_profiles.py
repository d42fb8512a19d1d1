"""Plug-ins, profiles, handlers and pickers: what the file says, what is added, and what is refused."""

from __future__ import annotations

import pytest

from epp.config import Built, ConfigError
from tests.config_kit import made


def shape(built: Built) -> dict[str, tuple[list[str], list[tuple[str, float]], str]]:
    """Profile → (filters, (scorer, weight)s, picker)."""
    return {
        name: (
            [bound.name for bound in profile.filters],
            [(bound.name, weight) for bound, weight in profile.scorers],
            profile.picker.name,
        )
        for name, profile in built.setup.profiles.items()
    }


def test_without_profiles_every_filter_scorer_and_picker_is_in_one() -> None:
    built = made("plugins: [{type: allow-all}, {type: even}, {type: first-row}, {type: both}, {type: doorman}]")
    assert shape(built) == {"default": (["allow-all", "both"], [("even", 1.0), ("both", 1.0)], "first-row")}


def test_filters_and_scorers_keep_the_order_of_the_profile() -> None:
    built = made(
        """
        plugins: [{type: even}, {type: both}, {type: allow-all}, {type: bold}]
        schedulingProfiles:
        - name: p
          plugins:
          - {pluginRef: both, weight: 3}
          - {pluginRef: allow-all}
          - {pluginRef: even}
          - {pluginRef: bold, weight: 0}
        """,
        experimental=True,
    )
    scorers = [("both", 3.0), ("even", 1.0), ("bold", 0.0)]
    assert shape(built) == {"p": (["both", "allow-all"], scorers, "max-score-picker")}


def test_a_picker_of_the_file_is_the_fallback() -> None:
    built = made("""
        plugins: [{type: first-row, name: mine}, {type: max-score-picker}, {type: even}]
        schedulingProfiles: [{name: p, plugins: [{pluginRef: even}]}]
        """)
    assert shape(built)["p"][2] == "mine"


def test_one_profile_gets_the_single_profile_handler() -> None:
    assert made("plugins: [{type: even}]").setup.handler.name == "single-profile-handler"


def test_a_handler_with_a_word_on_which_run_counts_has_it() -> None:
    built = made("""
        plugins: [{type: even}, {type: strict}]
        schedulingProfiles: [{name: a, plugins: [{pluginRef: even}]}, {name: b, plugins: [{pluginRef: even}]}]
        """)
    assert built.setup.handler.name == "strict"
    assert built.setup.primary is not None


def test_what_is_neither_filter_scorer_nor_picker_is_ignored_in_a_profile() -> None:
    built = made("""
        plugins: [{type: even}, {type: barometer}, {type: fcfs-ordering-policy}]
        schedulingProfiles:
        - name: p
          plugins: [{pluginRef: barometer, weight: 5}, {pluginRef: even}, {pluginRef: fcfs-ordering-policy}]
        """)
    assert shape(built) == {"p": ([], [("even", 1.0)], "max-score-picker")}


def test_a_scorer_that_no_profile_names_is_told() -> None:
    built = made("plugins: [{type: even}, {type: both}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: even}]}]")
    assert "plugins[1]: no profile names 'both', so it neither filters nor scores" in built.warnings


def test_hooks_screeners_and_admitters_are_collected_whether_or_not_a_profile_names_them() -> None:
    built = made("""
        plugins: [{type: listener}, {type: thermometer}, {type: door-screener}, {type: doorman}, {type: even}]
        schedulingProfiles: [{name: p, plugins: [{pluginRef: even}]}]
        """)
    assert [plugin.name for plugin in built.hooks] == ["listener", "thermometer"]
    assert [bound.name for bound in built.setup.screeners] == ["door-screener"]
    assert [bound.name for bound in built.setup.admitters] == ["doorman"]


def test_settings_reach_the_plug_in_in_any_spelling() -> None:
    built = made("plugins: [{type: even, name: third, parameters: {SHARE: 0.25}}]")
    assert built.setup.plugins["third"].settings == {"share": 0.25}


def test_warnings_and_deprecations_of_plug_ins_are_collected() -> None:
    built = made("plugins: [{type: both, name: b, parameters: {old: true}}]")
    assert built.warnings == ("plugins[0].type: both is deprecated; use even", "plugins[0] (b): old is ignored")


def test_parameters_of_a_type_that_has_none_are_warned_about() -> None:
    built = made("plugins: [{type: listener, parameters: {unit: K, scale: 2}}, {type: even}]")
    told = "plugins[0].parameters: listener has no settings; without effect: unit, scale"
    assert [warning for warning in built.warnings if "parameters" in warning] == [told]


REFUSED = {
    "no type": ("plugins: [{name: a}]", "plugins[0].type (line 3): plug-in 'a' has no type"),
    "a name twice": (
        "plugins: [{type: even}, {type: both, name: even}]",
        "plugins[1].name (line 3): 'even' is the name of plugins[0] too",
    ),
    "an unknown type": (
        "plugins: [{type: evn}]",
        "plugins[0].type (line 3): 'evn' is no plug-in type; did you mean even",
    ),
    "a broken plug-in": (
        "plugins: [{type: broken}]",
        "plugins[0].type (line 3): 'broken' can't be used: plug-in 'broken'",
    ),
    "an experimental type": (
        "plugins: [{type: bold}]",
        "plugins[0].type (line 3): 'bold' is experimental; start with --allow-experimental-plugins",
    ),
    "an unknown parameter": (
        "plugins: [{type: even, parameters: {shore: 1}}]",
        "plugins[0].parameters (line 3): even: no parameter named 'shore'; did you mean 'share'? have: share",
    ),
    "a parameter of the wrong type": (
        "plugins:\n- type: even\n  parameters:\n    share: much",
        "plugins[0].parameters.share (line 6): even: expected a number, got text (got 'much')",
    ),
    "a contract broken": (
        "plugins: [{type: wild}]",
        "plugins[0] (line 3): wild (scorer, 1 endpoint): scores must be in [0, 1]",
    ),
    "a reference to nobody": (
        "plugins: [{type: even}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: evn}]}]",
        "plugins[0].pluginRef (line 4): no plug-in is named 'evn'; did you mean even? have: even",
    ),
    "a reference to a type": (
        "schedulingProfiles: [{name: p, plugins: [{pluginRef: even}]}]",
        "no plug-in is named 'even'; add `- type: even` to plugins",
    ),
    "a profile without a name": ("schedulingProfiles: [{}]", "schedulingProfiles[0].name (line 3): missing"),
    "a profile name twice": (
        "schedulingProfiles: [{name: p}, {name: p}]",
        "schedulingProfiles[1].name (line 3): two profiles are named 'p'",
    ),
    "two pickers": (
        "plugins: [{type: first-row}, {type: max-score-picker}]",
        "schedulingProfiles[0]: profile 'default' has several pickers: first-row, max-score-picker; keep one",
    ),
    "two handlers": (
        "plugins: [{type: strict}, {type: single-profile-handler}]",
        "plugins (line 3): several profile handlers: strict, single-profile-handler; keep one",
    ),
    "no handler": (
        "schedulingProfiles: [{name: a}, {name: b}]",
        "plugins: 2 profiles and no profile handler; add header-profile-handler",
    ),
    "a single handler for two": (
        "plugins: [{type: single-profile-handler}]\nschedulingProfiles: [{name: a}, {name: b}]",
        "schedulingProfiles (line 4): single-profile-handler takes one profile, not 2 (a, b)",
    ),
    "a parser that is none": (
        "plugins: [{type: even}]\nrequestHandler: {parsers: [{pluginRef: even}]}",
        "requestHandler.parsers[0].pluginRef (line 4): 'even' is of type even, which is no parser",
    ),
}


@pytest.mark.parametrize(("text", "told"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_is_refused_with_path_line_and_remedy(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        made(text)
    assert told in str(raised.value)


def test_experimental_types_are_admitted_on_demand() -> None:
    assert shape(made("plugins: [{type: bold}]", experimental=True))["default"][1] == [("bold", 1.0)]


def test_parsers_are_taken_in_order_and_by_type_where_no_plug_in_has_the_name() -> None:
    built = made("""
        plugins: [{type: words, name: mine}, {type: even}]
        requestHandler: {parsers: [{pluginRef: mine}, {pluginRef: passthrough-parser}]}
        """)
    assert type(built.parsers.find("/words")).__name__ == "Words"
    assert type(built.parsers.find("/other")).__name__ == "PassthroughParser"
    assert [entry["pluginRef"] for entry in built.resolved.value["requestHandler"]["parsers"]] == [
        "mine",
        "passthrough-parser",
    ]


def test_what_the_parsers_drop_is_told() -> None:
    built = made("requestHandler: {parsers: [{pluginRef: passthrough-parser}, {pluginRef: words}]}")
    assert any("Words is never asked" in warning for warning in built.warnings)
