"""What YAML and JSON are read as, and what is refused with its line."""

from __future__ import annotations

import json
import string

import pytest
import yaml as pyyaml
from hypothesis import given
from hypothesis import strategies as st

from epp.config.errors import ConfigError
from epp.config.yaml import read

SCALARS = {
    "1e3": 1000.0,
    "-.5": -0.5,
    "1_000": 1000,
    "0x1f": 31,
    "2024-01-01": "2024-01-01",
    "10:30": "10:30",
    "yes": True,
    "Off": False,
    "'yes'": "yes",
    "'8000'": "8000",
    "~": None,
    "": None,
    "60s": "60s",
}


@pytest.mark.parametrize(("text", "value"), SCALARS.items(), ids=[text or "empty" for text in SCALARS])
def test_scalars_are_what_go_takes_them_for(text: str, value: object) -> None:
    found = read(f"a: {text}").value["a"]
    assert (found, type(found)) == (value, type(value))


REFUSED = {
    "a key twice": ("a: 1\nb: 2\na: 3", "line 3: key 'a' is there twice"),
    "a key twice further in": ("a:\n- b: 1\n  b: 2", "a[0] (line 3): key 'b' is there twice"),
    "a key twice in JSON": ('{"a": 1,\n"a": 2}', "line 2: key 'a' is there twice"),
    "a number that is none": ("a: .nan", "a (line 1): .nan is not a finite number"),
    "an object of a language": ("a: !!python/object:os.system x", "a (line 1): tag !!python/object:os.system"),
    "a key that is a list": ("[a]: 1", "line 1: a key must be text"),
    "an alias to itself": ("a: &a [*a]", "a[0] (line 1): an alias refers to what it stands in"),
    "no YAML": ("a: [1", "line 1: not valid YAML"),
    "two documents": ("a: 1\n---\nb: 2", "line 2: it holds more than one document; keep one"),
    "bytes that are no text": ("a: \0", "#x0000: special characters are not allowed"),
    "half a character": ('a: "\\ud800"', "a (line 1): can't be read"),
    "an octal number that is none": ("a: 09", "a (line 1): can't be read: '09'"),
    "a truth that is none": ("a: !!bool maybe", "a (line 1): can't be read: 'maybe'"),
    "a number without digits": ("a: !!int ''", "a (line 1): can't be read: ''"),
    "too deep": ("[" * 3000, "it is nested too deeply"),
}


@pytest.mark.parametrize(("text", "told"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_told_with_its_line(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(text)
    assert told in str(raised.value)


def test_json_may_escape_what_it_wants() -> None:
    assert read('{"a": "\\ud83d\\ude00\\/\\u00e9"}').value == {"a": "😀/é"}


def test_json_may_be_indented_with_tabs() -> None:
    assert read('{\n\t"a": [\n\t\t1]\n}').value == {"a": [1]}


def test_a_merged_key_gives_way_to_the_mapping_s_own() -> None:
    assert read("a: &x {p: 1, q: 1}\nb: {<<: *x, q: 2}").value["b"] == {"p": 1, "q": 2}


def test_keys_are_text_as_written() -> None:
    assert read("{1: a, yes: b}").value == {"1": "a", "yes": "b"}


def test_an_empty_text_holds_nothing() -> None:
    assert read("# nothing\n").value is None


def test_a_path_without_a_line_of_its_own_has_that_of_what_is_around_it() -> None:
    document = read("plugins:\n- type: a\n- type: b\n")
    assert [document.line(path) for path in ("plugins[1].type", "plugins[1].parameters.x", "other")] == [3, 3, 0]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_letters, min_size=1), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_json_means_what_it_means_elsewhere(value: object) -> None:
    text = json.dumps(value)
    assert read(text).value == value


@given(VALUES.filter(lambda value: value is not None))
def test_yaml_that_quotes_its_strings_means_what_it_means_elsewhere(value: object) -> None:
    assert read(pyyaml.safe_dump(value, default_style='"')).value == pyyaml.safe_load(
        pyyaml.safe_dump(value, default_style='"')
    )
