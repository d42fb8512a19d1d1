"""What a configuration is made from: a file or a text, and a directory of plug-ins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from epp import Endpoints, Scores
from epp.config import ConfigError, Origin, load, start, take_over
from epp.config.heirs import Heir
from epp.plugins import Catalogue, Plugin, PluginType
from epp.settings import PluginError
from tests.config_kit import HEAD, catalogue
from tests.unit.reload_kit import COUNTER, modules_forgotten


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with modules_forgotten():
        yield


def test_without_file_and_text_there_is_the_default_configuration() -> None:
    assert "queue-scorer" in start(Origin()).built.setup.plugins


def test_the_file_counts_and_plug_in_files_are_known_to_it(tmp_path: Path) -> None:
    (tmp_path / "counter.py").write_text(COUNTER)
    file = tmp_path / "epp.yaml"
    file.write_text("\ufeff" + HEAD + "plugins: [{type: counter}]")
    live = start(Origin(config_file=str(file), plugins_path=str(tmp_path)))
    assert live.built.setup.plugins["counter"].type.distribution == str(tmp_path / "counter.py")
    assert live.reading.config == file.read_bytes()


def test_a_plug_in_file_needs_the_flag_for_what_it_marks_experimental(tmp_path: Path) -> None:
    (tmp_path / "counter.py").write_text(f"{COUNTER}\nCounter.alpha = True")
    text = HEAD + "plugins: [{type: counter}]"
    with pytest.raises(ConfigError, match="'counter' is experimental; start with --allow-experimental-plugins"):
        start(Origin(config_text=text, plugins_path=str(tmp_path)))
    assert start(Origin(config_text=text, plugins_path=str(tmp_path), experimental=True))


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        pytest.param(Origin(config_file="/nowhere"), "can't be read: No such file or directory", id="no file"),
        pytest.param(Origin(config_text="\udcff"), "is not UTF-8 text", id="no text"),
        pytest.param(
            Origin(plugins_path="/nowhere"), "/nowhere (--plugins-path): can't be read: No such", id="no folder"
        ),
    ],
)
def test_what_can_not_be_read_is_told(origin: Origin, told: str) -> None:
    with pytest.raises((ConfigError, PluginError)) as raised:
        start(origin)
    assert told in str(raised.value)


def test_a_part_of_the_data_layer_is_not_replaced_by_a_plug_in(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f(): ...\nPLUGINS = {'epp.scorers': {'metrics-data-source': f}}")
    with pytest.raises(ConfigError, match="'metrics-data-source' is a part of the picker; name the plug-in"):
        start(Origin(plugins_path=str(tmp_path)))


EVEN = HEAD + "plugins: [{type: even, parameters: {share: %s}}, {type: thermometer, parameters: {degrees: %s}}]"


def plugins(text: str, **more: Any) -> dict[str, Plugin]:
    return dict(load(text, catalogue=catalogue(), **more).setup.plugins)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        pytest.param((0.5, 0.1), ["even", "thermometer"], id="none changed"),
        pytest.param((0.6, 0.1), ["thermometer"], id="one changed"),
        pytest.param((0.6, 0.2), [], id="both changed"),
    ],
)
def test_plug_ins_of_the_same_code_and_settings_go_on(settings: tuple[float, float], kept: list[str]) -> None:
    before = plugins(EVEN % (0.5, 0.1))
    after = plugins(EVEN % settings, inherit=before)
    same = [name for name in ("even", "thermometer") if after[name].instance is before[name].instance]
    assert same == kept


def test_a_plug_in_of_another_type_inherits_nothing_from_one_of_its_name() -> None:
    before = plugins(HEAD + "plugins: [{type: even, name: x}]")
    built = load(HEAD + "plugins: [{type: both, name: x}]", catalogue=catalogue(), inherit=before)
    assert [heir.plugin.name for heir in built.heirs if heir.plugin.name == "x"] == []


class Old:
    adopted = False


class Heiress:
    def __call__(self, endpoints: Endpoints) -> Scores:
        raise NotImplementedError

    def adopt(self, before: Old) -> None:
        before.adopted = True


class Clumsy(Heiress):
    def adopt(self, before: Old) -> None:
        raise SystemExit(1)


def plugin(instance: object) -> Plugin:
    name = type(instance).__name__
    return Plugin(name, PluginType(name, ("scorer",), type(instance), (), "tests"), instance, {})


def test_heirs_adopt_and_those_that_fail_are_named() -> None:
    old = Old()
    heirs = [Heir(plugin(heir), plugin(old)) for heir in (Clumsy(), Old(), Heiress())]
    assert (take_over(heirs), old.adopted) == ({"Clumsy": "SystemExit(1)"}, True)


def test_the_joined_catalogue_knows_what_the_first_had_loaded() -> None:
    first = Catalogue.installed()
    found = first.find("queue-scorer")
    assert first.joined([]).find("queue-scorer") is found
