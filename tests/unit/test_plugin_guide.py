"""The code of docs/plugins.md works as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from epp.config import catalogue
from epp.plugin_files import PluginFiles, read
from epp.plugin_places import Offer, offers
from epp.testing import check_scorer, endpoints, request
from tests.scorer_kit import decided, table
from tests.unit.reload_kit import modules_forgotten

GUIDE = Path(__file__).parents[2] / "docs" / "plugins.md"
EXAMPLE = Path(__file__).parents[2] / "examples" / "hello-scorer"


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """Everything the guide's Python defines, each piece run after those before it."""
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL):
        if "from hello_scorer import" not in code:
            exec(code, names)  # the guide's own text
    return names


def test_the_first_scorer_keeps_the_contract(shown: dict[str, Any]) -> None:
    check_scorer(shown["short_queue"])
    assert list(shown["short_queue"](request(), endpoints(waiting=[0, 4, 8]))) == [1.0, 0.5, 0.25]


def test_the_first_scorer_is_that_of_the_example(shown: dict[str, Any]) -> None:
    function = re.search(r"def short_queue.*", (EXAMPLE / "hello_scorer.py").read_text(), re.DOTALL)
    assert function is not None
    assert function[0] in GUIDE.read_text()


def test_the_scorer_with_memory_remembers_by_name(shown: dict[str, Any]) -> None:
    check_scorer(shown["Rested"])
    rested, asked, made = shown["Rested"](), request(), table("a", "b")
    rested(made, 0.0)
    rested.picked(asked, decided(asked, made, {"default": "b"}, now=5.0))
    assert list(rested(table("b", "c", "a"), 6.0)) == [0.5, 1.0, 1.0]


def test_the_scorer_with_memory_hands_it_over_and_tells_of_it(shown: dict[str, Any]) -> None:
    before, heir, asked, made = shown["Rested"](), shown["Rested"](half_s=2.0), request(), table("a", "b")
    before(made, 0.0)
    before.picked(asked, decided(asked, made, {"default": "b"}, now=5.0))
    heir.adopt(before)
    assert list(heir(made, 7.0)) == [1.0, 0.5]
    assert heir.state() == {"endpoints": 2}


def test_the_file_with_a_word_of_its_own_offers_an_admitter(shown: dict[str, Any]) -> None:
    module = ModuleType("shown")
    vars(module).update(shown)
    assert offers(module, "a.py") == [Offer("admitter", "night-rest", shown["night_rest"])]
    assert [shown["night_rest"](request(priority=n)) is None for n in (-1, 0)] == [False, True]


def test_the_config_map_holds_a_scorer(tmp_path: Path) -> None:
    maps = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL)]
    (files,) = [shown["data"] for shown in maps if shown["kind"] == "ConfigMap"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with modules_forgotten():
        found = catalogue(PluginFiles(read(str(tmp_path)))).find("short-queue")
    check_scorer(found.target)
    assert list(found.target(request(), endpoints(waiting=[0, 4, 8]))) == [1.0, 0.5, 0.25]


def test_the_column_signal_counts_by_rack(shown: dict[str, Any]) -> None:
    made = endpoints(labels=[{"rack": "a"}, {"rack": "b"}, {"rack": "a"}], running=[1, 2, 3])
    assert list(shown["rack_load"](made)) == [4, 2, 4]
    assert list(shown["rack_load"](endpoints())) == []


def test_the_profile_handler_runs_a_second_profile_for_long_prompts(shown: dict[str, Any]) -> None:
    handler, profiles = shown["LongPromptsApart"](long_bytes=100), ("prefill", "decode")
    wanted = [handler(request(body_bytes=size), profiles, {}) for size in (99, 100)]
    assert wanted == [["decode"], ["decode", "prefill"]]
    assert handler.primary(request(), {}) == "decode"


def test_the_prefix_scorer_is_the_cached_share(shown: dict[str, Any]) -> None:
    assert list(shown["cached_share"](np.array([2.0, 0.0]), 4.0)) == [0.5, 0.0]
